"""The accounts of an S3 server that manages them itself: versitygw, through its admin API.

Requests are signed as for S3, and bodies are XML: https://github.com/versity/versitygw/wiki/Admin-APIs
"""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from urllib.parse import urlencode

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.httpsession import URLLib3Session

from clients import fence
from plattr.backends import Backend, of_backend
from plattr.buckets import checked_endpoint
from plattr.errors import BackendRefused, BackendUnavailable, MissingSetting
from plattr.settings import Settings
from telemetry import tracing

# The timeouts of the S3 client, because these calls take milliseconds, too.
CONNECT_SECONDS = 3
READ_SECONDS = 10
# 4: a run checks an account only once.
THREADS = 4
# Of versitygw's three roles, `user` can neither own nor create buckets. Bucket policies alone define its rights.
ROLE = "user"


class S3Accounts:
    """Creates, checks and removes accounts; the worker's own account must have the role `admin`."""

    def __init__(self, settings: Settings, *, session: boto3.Session | None = None) -> None:
        """Take the address from the settings, the credentials from boto3's own chain.

        Args:
            settings: S3_ACCOUNTS_URL, or else AWS_ENDPOINT_URL, if one address serves S3 and the accounts.
            session: other credentials than the process's own.

        Raises:
            MissingSetting: no address is set.
        """
        endpoint = checked_endpoint("AWS_ENDPOINT_URL", settings.aws_endpoint_url)
        if endpoint is None:
            raise MissingSetting(
                "cannot start: setting S3_ACCOUNTS: it needs AWS_ENDPOINT_URL, the address of that server;"
                " see docs/settings.md"
            )
        self._endpoint = endpoint
        self._admin = checked_endpoint("S3_ACCOUNTS_URL", settings.s3_accounts_url) or endpoint
        self._region = settings.aws_region
        self._session = session
        self._credentials: Credentials | None = None
        self._looking = threading.Lock()
        timeouts = (CONNECT_SECONDS, READ_SECONDS)
        self._http = URLLib3Session(timeout=timeouts, max_pool_connections=THREADS)  # type: ignore[arg-type]  # stubs lack the pair
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3-accounts")

    def close(self) -> None:
        """Close connections and threads; the client cannot be used afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    async def accepts(self, key: str, secret: str) -> bool:
        """Tell whether an account has this key, by signing in with it."""
        status = await self._call("sign in to S3", "GET", f"{self._endpoint}/", "", Credentials(key, secret))
        if status not in (200, 403):
            raise _refused("sign in to S3", status)
        return status == 200

    async def put(self, key: str, secret: str) -> None:
        """Create the account, or set this secret on the existing account.

        Raises:
            BackendRefused: the worker's account is not an admin.
        """
        # Key and secret consist of letters, digits and base64 characters, none of which needs escaping in XML.
        content = f"<Access>{key}</Access><Secret>{secret}</Secret><Role>{ROLE}</Role>"
        action = f"make account {key!r} of S3"
        status = await self._administer(action, "create-user", f"<Account>{content}</Account>")
        if status == 409:
            content = f"<Secret>{secret}</Secret><Role>{ROLE}</Role>"
            body = f"<MutableProps>{content}</MutableProps>"
            status = await self._administer(action, "update-user", body, access=key)
        if status >= 300:
            raise _refused(action, status)

    async def remove(self, key: str) -> None:
        """Remove the account; a missing account is success.

        Raises:
            BackendRefused: the worker's account is not an admin.
        """
        action = f"remove account {key!r} of S3"
        status = await self._administer(action, "delete-user", "", access=key)
        if status >= 300 and status != 404:
            raise _refused(action, status)

    async def _administer(self, action: str, call: str, body: str, **query: str) -> int:
        address = f"{self._admin}/{call}" + (f"?{urlencode(query)}" if query else "")
        return await self._call(action, "PATCH", address, body, None)

    async def _call(self, action: str, method: str, address: str, body: str, credentials: Credentials | None) -> int:
        """Send one signed request and return its status; without `credentials`, sign with the worker's own."""
        content = body.encode()

        def send() -> int:
            signed_by = credentials or self._own(action)
            headers = {"X-Amz-Content-SHA256": sha256(content).hexdigest()}
            request = AWSRequest(method=method, url=address, data=content, headers=headers)
            SigV4Auth(signed_by, "s3", self._region).add_auth(request)
            if method != "GET":
                # Ask the fence as late as possible, as for S3's own calls.
                fence.ensure_live()
            status: int = self._http.send(request.prepare()).status_code
            return status

        context = contextvars.copy_context()
        try:
            with tracing.span(Backend.S3, "call", {"rpc.method": method, "url.path": address.partition("?")[0]}):
                status = await asyncio.get_running_loop().run_in_executor(self._threads, context.run, send)
        except (HTTPClientError, BotoCoreError) as error:
            # From None, and only the class: the text of a request contains a key.
            cause = type(error).__name__
            unreachable = BackendUnavailable(f"cannot {action}: it cannot be reached: {cause}; check AWS_ENDPOINT_URL")
            raise of_backend(Backend.S3, unreachable) from None
        if status >= 500 or status == 429:
            raise of_backend(Backend.S3, BackendUnavailable(f"cannot {action}: S3 answered {status}"))
        return status

    def _own(self, action: str) -> Credentials:
        with self._looking:
            if self._credentials is None:
                # The lock is needed because a session cannot be created safely in several threads.
                session = self._session or boto3.Session(region_name=self._region)
                self._credentials = session.get_credentials()
            if self._credentials is None:
                none = BackendRefused(f"cannot {action}: the worker has no credentials; give it access keys")
                raise of_backend(Backend.S3, none)
            return self._credentials


def _refused(action: str, status: int) -> BackendRefused:
    refusal = BackendRefused(f"cannot {action}: the server answered {status}; the worker's account must be an admin's")
    return of_backend(Backend.S3, refusal)
