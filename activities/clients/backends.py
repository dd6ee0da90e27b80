"""What the clients talk to, in the words of errors, metrics and traces."""

from enum import StrEnum
from typing import TypeVar

from plattr.errors import PlattrError

Error = TypeVar("Error", bound=PlattrError)


class Backend(StrEnum):
    """One of the servers outside."""

    KUBERNETES = "kubernetes"
    POSTGRESQL = "postgresql"
    S3 = "s3"
    KEYCLOAK = "keycloak"
    SECRETS_MANAGER = "secretsmanager"
    TEMPORAL = "temporal"


def of_backend(backend: Backend, error: Error) -> Error:
    """Return the error with the mark of the backend that it comes from, for the metrics."""
    error.backend = backend
    return error
