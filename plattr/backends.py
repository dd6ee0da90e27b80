"""What the clients talk to, in the words of errors, metrics and traces."""

from enum import StrEnum
from typing import TypeVar

from plattr.errors import BackendUnavailable, PlattrError

Error = TypeVar("Error", bound=PlattrError)


class Backend(StrEnum):
    """One of the servers outside."""

    KUBERNETES = "kubernetes"
    POSTGRESQL = "postgresql"
    S3 = "s3"
    KEYCLOAK = "keycloak"
    REDIS = "redis"
    OPENSEARCH = "opensearch"
    SECRETS_MANAGER = "secretsmanager"
    TEMPORAL = "temporal"


def of_backend(backend: Backend, error: Error) -> Error:
    """Return the error with the mark of the backend that it comes from, for the metrics."""
    error.backend = backend
    return error


class NothingPending(BackendUnavailable):
    """Raised when a backend did not do what it was asked and will not do it later: it was not asked, or said so."""
