"""Read the admin's PostgreSQL login from AWS Secrets Manager."""

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

# A call takes some 50 ms. The caller opens a connection for an attempt, which Temporal retries.
_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2, "mode": "standard"})

# The format of the secrets that RDS itself writes and rotates, with libpq's name for each key.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
_KEYS = {"username": "user", "password": "password", "host": "host", "port": "port", "dbname": "dbname"}
_NEEDED = ("username", "password")

# No permission, no such secret, or no key to decrypt it: a quick retry does not help.
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
    """Reads secrets; boto3 takes the credentials, and an address if one is set, from the environment.

    AWS_ENDPOINT_URL, the address of S3, is no longer in the environment: see worker/__main__.py.
    """

    def __init__(self, region: str) -> None:
        self._region = region

    async def database_parameters(self, arn: str) -> dict[str, str]:
        """Return the libpq parameters in a secret of RDS's format; user and password are always included.

        Raises:
            BackendRefused: the secret does not exist, may not be read, or has another format.
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
        # Created in the thread of the first call, because it loads the service's model, which takes some 100 ms.
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
            # ResponseParserError is no BotoCoreError. A proxy's answer causes it, either to this call or to the call to
            # STS for a pod's role.
            cause = f"{type(error).__name__}: {error}".partition("\n")[0]
            away = BackendUnavailable(f"cannot read the database login from {arn}: {cause}")
            raise of_backend(Backend.SECRETS_MANAGER, away) from None
