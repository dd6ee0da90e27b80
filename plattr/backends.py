"""The backends that the clients talk to, as errors, metrics and traces name them."""

from enum import StrEnum
from typing import TypeVar

from plattr.errors import BackendUnavailable, PlattrError

Error = TypeVar("Error", bound=PlattrError)


class Backend(StrEnum):
    """One of the external servers."""

    KUBERNETES = "kubernetes"
    POSTGRESQL = "postgresql"
    S3 = "s3"
    KEYCLOAK = "keycloak"
    REDIS = "redis"
    OPENSEARCH = "opensearch"
    SECRETS_MANAGER = "secretsmanager"
    TEMPORAL = "temporal"


def of_backend(backend: Backend, error: Error) -> Error:
    """Return the error, marked with the backend that it comes from, for the metrics."""
    error.backend = backend
    return error


class NothingPending(BackendUnavailable):
    """Raised when a call had no effect and will have none: the backend never got it, or said so."""
