"""AWS Secrets Manager: the admin's login to PostgreSQL."""

import asyncio
import json
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from plattr.backends import Backend, of_backend
from plattr.errors import BackendRefused, BackendUnavailable
from telemetry import tracing

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient as Boto3Client

# A call takes some 50 ms; the caller is a connection that Temporal tries again.
_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2, "mode": "standard"})

# The shape that RDS itself writes and rotates, by libpq's names.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
_KEYS = {"username": "user", "password": "password", "host": "host", "port": "port", "dbname": "dbname"}
_NEEDED = ("username", "password")

# No permission, no such secret, no key to open it: a retry soon changes nothing.
_REFUSALS = frozenset(
    {
        "AccessDeniedException",
        "DecryptionFailure",
        "InvalidParameterException",
        "InvalidRequestException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
    }
)


class SecretsManagerClient:
    """Reads secrets; credentials and an address of its own come from boto3's environment.

    S3's address, AWS_ENDPOINT_URL, is no longer there: see worker/__main__.py.
    """

    def __init__(self, region: str) -> None:
        self._region = region

    async def database_parameters(self, arn: str) -> dict[str, str]:
        """Return the libpq parameters that a secret of RDS's shape holds; user and password are always there.

        Raises:
            BackendRefused: there is no such secret, no right to read it, or it has another shape.
            BackendUnavailable: the service cannot be reached or is overloaded.
        """
        with tracing.span(Backend.SECRETS_MANAGER, "read"):
            text = await asyncio.to_thread(self._read, arn)
        try:
            secret = json.loads(text)
        except ValueError:
            secret = None
        if not isinstance(secret, dict) or not all(secret.get(key) for key in _NEEDED):
            unfit = BackendRefused(
                f"cannot read the database login from {arn}: it is not JSON with username and password;"
                " see docs/settings.md"
            )
            raise of_backend(Backend.SECRETS_MANAGER, unfit)
        return {parameter: str(secret[key]) for key, parameter in _KEYS.items() if secret.get(key)}

    @cached_property
    def _client(self) -> "Boto3Client":
        # Made in the thread of the first call: it loads the service's model, which takes some 100 ms.
        return boto3.session.Session().client("secretsmanager", region_name=self._region, config=_CONFIG)

    def _read(self, arn: str) -> str:
        try:
            return self._client.get_secret_value(SecretId=arn).get("SecretString", "")
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            kind = BackendRefused if code in _REFUSALS else BackendUnavailable
            refusal = kind(f"cannot read the database login from {arn}: Secrets Manager answers {code}")
            raise of_backend(Backend.SECRETS_MANAGER, refusal) from None
        except (BotoCoreError, ResponseParserError) as error:
            # The second is no BotoCoreError: what a proxy answers, to this call or to that of a pod's role to STS.
            cause = f"{type(error).__name__}: {error}".partition("\n")[0]
            away = BackendUnavailable(f"cannot read the database login from {arn}: {cause}")
            raise of_backend(Backend.SECRETS_MANAGER, away) from None
