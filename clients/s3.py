"""S3, of AWS or of a compatible server, through boto3 in a thread pool of its own."""

import asyncio
import contextvars
import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_plus, urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from clients import fence
from clients import s3_errors as calls
from clients.s3_accounts import S3Accounts
from clients.s3_errors import AccessDenied, Operation, code_of, kept_objects, translate
from plattr.backends import Backend, of_backend
from plattr.buckets import ACCESS_BLOCK, checked_endpoint
from plattr.settings import Settings
from telemetry import tracing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client as Boto3S3
    from mypy_boto3_sts import STSClient as Boto3Sts

Json = dict[str, Any]
Answer = TypeVar("Answer")
# The content of one page of a bucket: keys, each with the id of its version or of its upload.
Entries = frozenset[tuple[str, str]]

# 3 and 10 s: S3 answers these calls in milliseconds. The activity must still have time to report the failure within
# its start-to-close timeout of 60 s.
CONNECT_SECONDS = 3
READ_SECONDS = 10
# 16 threads, and as many connections: a call takes 5 to 50 ms. That makes some 500 calls a second, more than one event
# loop of Python needs. Only S3 uses these threads, so an S3 server that hangs blocks no other backend.
THREADS = 16
# DeleteObjects takes at most 1,000 keys, and a page of ListObjectVersions holds as many.
BATCH_SIZE = 1000
# If the server takes no batch, a few calls run concurrently, so that one bucket does not occupy every thread.
SINGLE_CALLS_AT_ONCE = 8

# This region has no LocationConstraint: S3 refuses a call that names it.
_DEFAULT_REGION = "us-east-1"
_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
# Answers to DeleteObjects of servers that want another checksum than botocore sends, or that forbid batches.
# MalformedXML: XML cannot represent a key with a control character. https://github.com/aws/aws-sdk-java-v2/issues/5805
_NO_BATCH = frozenset({"MissingContentMD5", "InvalidRequest", "InvalidDigest", "NotImplemented", "MalformedXML"})
_GONE_KEYS = frozenset({"NoSuchKey", "NoSuchVersion"})


class Standing(StrEnum):
    """Which account has a bucket name."""

    ABSENT = "absent"
    OURS = "ours"
    FOREIGN = "foreign"


class S3Client:
    """One S3 account in one region. It connects at its first call; every method raises Plattr's errors."""

    def __init__(self, settings: Settings, *, session: boto3.Session | None = None) -> None:
        """Take the address and the region from the settings, the credentials from boto3's own chain.

        Args:
            settings: AWS_REGION, where buckets are created; AWS_ENDPOINT_URL, a compatible server with path-style URLs.
            session: other credentials than the process's own (IRSA, environment, files).

        Raises:
            MissingSetting: AWS_ENDPOINT_URL is not an address.
        """
        self._region = settings.aws_region
        self._endpoint_url = checked_endpoint("AWS_ENDPOINT_URL", settings.aws_endpoint_url)
        host = urlsplit(self._endpoint_url or "").hostname
        self._is_aws = host is None or host.endswith(_AWS_DOMAINS)
        self._session = session
        self.accounts = S3Accounts(settings, session=session) if settings.s3_accounts == "versitygw" else None
        """The server's own accounts; None if Plattr does not manage the applications' credentials."""
        self._connections: tuple[Boto3S3, Boto3Sts | None] | None = None
        self._connecting = threading.Lock()
        self._account_id: str | None = None
        self._knows_account = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")

    def close(self) -> None:
        """Close connections and threads; the client cannot be used afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.accounts is not None:
            self.accounts.close()
        for connection in self._connections or ():
            if connection is not None:
                connection.close()

    @property
    def boto(self) -> "Boto3S3":
        """Return boto3's client; the first use creates it, looks for credentials, and may take a second."""
        return self._connect()[0]

    async def partition(self) -> str:
        """Return the partition of this region, as ARNs name it: aws, aws-cn, aws-us-gov."""
        return str((await self._in_thread(self._connect))[0].meta.partition)

    def _connect(self) -> "tuple[Boto3S3, Boto3Sts | None]":
        with self._connecting:
            if self._connections is None:
                # The lock is needed because a boto3 session's clients cannot be created safely in several threads.
                session = self._session or boto3.Session(region_name=self._region)
                config = Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    # Temporal retries; a hidden retry would only make an attempt outlive its deadline.
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    max_pool_connections=THREADS,
                    # Older compatible servers refuse the optional checksums that botocore would add.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": "path"} if self._endpoint_url else {},
                    # Otherwise botocore would send STS calls to AWS_ENDPOINT_URL, too, which here is S3's address.
                    ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # unknown to the stubs
                )
                s3 = session.client("s3", region_name=self._region, endpoint_url=self._endpoint_url, config=config)
                s3.meta.events.register("before-send.s3", _ask_fence)
                sts = session.client("sts", region_name=self._region, config=config) if self._is_aws else None
                self._connections = (s3, sts)
            return self._connections

    async def locate(self, bucket: str) -> Standing:
        """Return which account has the name, without any write.

        Raises:
            AccessDenied: the bucket belongs to our account, but the worker may not read it.
        """
        try:
            if await self._call(calls.HEAD_BUCKET, bucket, absent=("404",)) is None:
                return Standing.ABSENT
        except AccessDenied:
            # Either another account has the bucket, or the worker lacks a right. If the bucket opens as soon as the
            # call does not name our account, another account has it. Otherwise our account's own list decides.
            if await self._opens_for_strangers(bucket) or bucket not in await self.list_buckets(bucket):
                return Standing.FOREIGN
            raise
        if await self._account() is None and bucket not in await self.list_buckets(bucket):
            return Standing.FOREIGN
        return Standing.OURS

    async def list_buckets(self, prefix: str) -> list[str]:
        """Return the account's buckets whose names begin with the prefix."""
        names: list[str] = []
        page: Json = {}
        while True:
            following = {"ContinuationToken": page["ContinuationToken"]} if page else {}
            page = await self._expect(calls.LIST_BUCKETS, Prefix=prefix, **following)
            # Some servers do not know the parameter `Prefix`, and list everything.
            names += [entry["Name"] for entry in page.get("Buckets", []) if entry["Name"].startswith(prefix)]
            if not page.get("ContinuationToken"):
                return names

    async def create(self, bucket: str) -> bool:
        """Create the bucket; False: another account has the name, and a retry does not help.

        True does not mean that this call created the bucket: in us-east-1 S3 answers 200 for a bucket that we own
        already.
        """
        place = {} if self._region == _DEFAULT_REGION else {"LocationConstraint": self._region}
        settings = {"CreateBucketConfiguration": place} if place else {}
        answer = await self._call(
            calls.CREATE_BUCKET,
            bucket,
            absent=("BucketAlreadyExists",),
            present=("BucketAlreadyOwnedByYou",),
            names_owner=False,
            **settings,
        )
        return answer is not None

    async def tags(self, bucket: str) -> dict[str, str]:
        """Return the bucket's tags."""
        answer = await self._call(calls.GET_TAGS, bucket, absent=("NoSuchTagSet",))
        return {tag["Key"]: tag["Value"] for tag in (answer or {}).get("TagSet", [])}

    async def put_tags(self, bucket: str, tags: Mapping[str, str]) -> None:
        """Replace the bucket's tags."""
        tag_set = [{"Key": key, "Value": value} for key, value in tags.items()]
        await self._call(calls.PUT_TAGS, bucket, Tagging={"TagSet": tag_set})

    async def cors(self, bucket: str) -> list[Json]:
        """Return the bucket's CORS rules."""
        answer = await self._call(calls.GET_CORS, bucket, absent=("NoSuchCORSConfiguration",))
        return list((answer or {}).get("CORSRules", []))

    async def put_cors(self, bucket: str, rules: Sequence[Json]) -> None:
        """Replace the bucket's CORS rules."""
        await self._call(calls.PUT_CORS, bucket, CORSConfiguration={"CORSRules": list(rules)})

    async def policy(self, bucket: str) -> Json | None:
        """Return the bucket's policy; None when the bucket has none."""
        answer = await self._call(calls.GET_POLICY, bucket, absent=("NoSuchBucketPolicy",))
        policy: Json | None = json.loads(answer["Policy"]) if answer and answer.get("Policy") else None
        return policy

    async def put_policy(self, bucket: str, policy: Json) -> None:
        """Replace the bucket's policy."""
        await self._call(calls.PUT_POLICY, bucket, Policy=json.dumps(policy))

    async def delete_policy(self, bucket: str) -> None:
        """Remove the bucket's policy."""
        await self._call(calls.DELETE_POLICY, bucket, absent=("NoSuchBucketPolicy",))

    async def blocks_public_access(self, bucket: str) -> bool | None:
        """Tell whether public access is blocked in every way; None: it is blocked in no way."""
        answer = await self._call(calls.GET_BLOCK, bucket, absent=("NoSuchPublicAccessBlockConfiguration",))
        block = (answer or {}).get("PublicAccessBlockConfiguration", {})
        return block == ACCESS_BLOCK if any(block.values()) else None

    async def block_public_access(self, bucket: str) -> None:
        """Block public access in every way: only accounts get access, whatever the policy allows."""
        await self._call(calls.PUT_BLOCK, bucket, PublicAccessBlockConfiguration=ACCESS_BLOCK)

    async def allow_public_access(self, bucket: str) -> None:
        """Remove the block, so that a policy may open the bucket."""
        await self._call(calls.DELETE_BLOCK, bucket, absent=("NoSuchPublicAccessBlockConfiguration",))

    async def ownership(self, bucket: str) -> str | None:
        """Return the rule for the owner of objects that other accounts write: BucketOwnerEnforced, or one with ACLs."""
        answer = await self._call(calls.GET_OWNERSHIP, bucket, absent=("OwnershipControlsNotFoundError",))
        rules = (answer or {}).get("OwnershipControls", {}).get("Rules", [])
        return rules[0]["ObjectOwnership"] if rules else None

    async def put_ownership(self, bucket: str, ownership: str) -> None:
        """Set the rule for the owner of objects that other accounts write."""
        rules = {"Rules": [{"ObjectOwnership": ownership}]}
        await self._call(calls.PUT_OWNERSHIP, bucket, OwnershipControls=rules)

    async def is_empty(self, bucket: str) -> bool:
        """Tell whether the bucket holds nothing: no object, no version, no delete marker, no open upload."""
        page = await self._expect(calls.LIST_VERSIONS, bucket, MaxKeys=1)
        if page.get("Versions") or page.get("DeleteMarkers"):
            return False
        return not (await self._expect(calls.LIST_UPLOADS, bucket, MaxUploads=1)).get("Uploads")

    async def abort_uploads(self, bucket: str) -> Entries:
        """Abort the open uploads of one page; return the page's entries."""
        # XML cannot represent a control character. botocore requests this encoding for objects, but not for uploads.
        page = await self._expect(calls.LIST_UPLOADS, bucket, EncodingType="url")
        is_encoded = page.get("EncodingType") == "url"
        uploads = [
            (unquote_plus(upload["Key"]) if is_encoded else upload["Key"], upload["UploadId"])
            for upload in page.get("Uploads", [])
        ]
        parameters = [{"Key": key, "UploadId": upload} for key, upload in uploads]
        await self._call_each(calls.ABORT_UPLOAD, bucket, parameters, absent=("NoSuchUpload",))
        return frozenset(uploads)

    async def delete_page(self, bucket: str) -> Entries:
        """Delete the object versions and delete markers of one page permanently; return the page's entries.

        A success answer does not prove a deletion. Some servers show a key with control characters in a wrong form, and
        then delete nothing. Only the next page shows whether the entries are gone.

        Raises:
            BackendRefused: S3 keeps some entries, because a right is missing or a retention period still runs.
        """
        page = await self._expect(calls.LIST_VERSIONS, bucket, MaxKeys=BATCH_SIZE)
        entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        shown = frozenset((entry["Key"], entry["VersionId"]) for entry in entries)
        if not shown:
            return shown
        keys = [{"Key": key, "VersionId": version} for key, version in shown]
        batch = {"Objects": keys, "Quiet": True}
        answer = await self._call(calls.DELETE_OBJECTS, bucket, absent=_NO_BATCH, Delete=batch)
        if answer is None:
            await self._call_each(calls.DELETE_OBJECT, bucket, keys, absent=_GONE_KEYS)
            return shown
        kept = [error for error in answer.get("Errors", []) if error.get("Code") not in _GONE_KEYS]
        if kept:
            raise of_backend(Backend.S3, kept_objects(str(kept[0].get("Code")), len(kept), bucket))
        return shown

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket; a missing bucket is success.

        Raises:
            StillDeleting: the bucket is not empty any more.
        """
        await self._call(calls.DELETE_BUCKET, bucket, absent=("NoSuchBucket",))

    async def _call_each(
        self, operation: Operation, bucket: str, parameters: Sequence[Json], *, absent: Collection[str]
    ) -> None:
        for start in range(0, len(parameters), SINGLE_CALLS_AT_ONCE):
            some = parameters[start : start + SINGLE_CALLS_AT_ONCE]
            await asyncio.gather(*(self._call(operation, bucket, absent=absent, **each) for each in some))

    async def _opens_for_strangers(self, bucket: str) -> bool:
        if await self._account() is None:
            return False
        try:
            await self._call(calls.HEAD_BUCKET, bucket, names_owner=False)
        except AccessDenied:
            return False
        return True

    async def _account(self) -> str | None:
        """Return the value of `ExpectedBucketOwner` for our account; None on a server without accounts.

        AWS tells the account id only through STS. Compatible servers have no STS, and send the id with the bucket list.
        """
        if not self._knows_account:
            if self._is_aws:
                answer = await self._expect(calls.GET_CALLER)
                self._account_id = answer["Account"]
            else:
                answer = await self._expect(calls.LIST_BUCKETS, MaxBuckets=1)
                self._account_id = answer.get("Owner", {}).get("ID") or None
            self._knows_account = True
        return self._account_id

    async def _expect(self, operation: Operation, bucket: str = "", **parameters: Any) -> Json:
        return await self._call(operation, bucket, **parameters) or {}

    async def _call(
        self,
        operation: Operation,
        bucket: str = "",
        *,
        absent: Collection[str] = (),
        present: Collection[str] = (),
        names_owner: bool = True,
        **parameters: Any,
    ) -> Json | None:
        """Call S3 in a thread; return None for the codes in `absent`, and an empty answer for those in `present`."""
        if bucket:
            parameters["Bucket"] = bucket
            # Without the owner, a write would also reach another account's bucket of this name that is open to us.
            if names_owner and (account := await self._account()) is not None:
                parameters["ExpectedBucketOwner"] = account

        def send() -> Json:
            s3, sts = self._connect()
            answer: Json = getattr(sts if operation is calls.GET_CALLER else s3, operation.method)(**parameters)
            return answer

        try:
            with tracing.span(Backend.S3, "call", {"rpc.method": operation.method, "aws.s3.bucket": bucket}):
                return await self._in_thread(send)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            code = code_of(error) if isinstance(error, ClientError) else ""
            if code and code in absent:
                return None
            if code and code in present:
                return {}
            # From None: botocore quotes addresses and whole answers, and Temporal would store the cause in the history.
            raise of_backend(Backend.S3, translate(error, operation, bucket, is_aws=self._is_aws)) from None

    async def _in_thread(self, call: Callable[[], Answer]) -> Answer:
        # The fence is a context variable, and a pool thread does not share our context.
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, call)


def _ask_fence(request: AWSPreparedRequest, **_: Any) -> None:
    """Stop a write whose attempt's lease has expired.

    botocore calls this function when the request is signed, immediately before it goes to the socket. Between the
    client's call and this function lie a queue for a thread and milliseconds of work, in which a process can freeze.
    """
    if request.method not in ("GET", "HEAD"):
        fence.ensure_live()
