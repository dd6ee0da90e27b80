"""The Secrets that hold an application's passwords; these are stored nowhere else."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from plattr.manifests.metadata import FEATURE_LABEL, build_metadata
from plattr.target import Target

# The names that every S3 SDK reads.
ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105  the name of a variable


def build_database_secret(target: Target, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the Secret whose keys become environment variables; `values` are plain text, not base64."""
    return _build(target, target.names.database_secret, "database", values)


def build_redis_secret(target: Target, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the Secret of an application's user of Redis; `values` are plain text, not base64."""
    return _build(target, target.names.redis_secret, "redis", values)


def build_storage_keys(target: Target, key: str, secret: str) -> dict[str, Any]:
    """Return the Secret with the access key of the application's account on the S3 server."""
    return _build(target, target.names.storage_keys, "storage", {ACCESS_KEY: key, SECRET_KEY: secret})


def _build(target: Target, name: str, feature: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": build_metadata(target, name, labels={FEATURE_LABEL: feature}),
        "type": "Opaque",
        # Without stringData: under server-side apply, a key that is removed from stringData stays in the Secret.
        # https://github.com/kubernetes/kubernetes/issues/108008
        "data": {key: b64encode(value.encode()).decode() for key, value in values.items()},
    }
