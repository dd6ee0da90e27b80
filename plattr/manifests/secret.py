"""The database Secret: the password's only home."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from plattr.manifests.metadata import FEATURE_LABEL, build_metadata
from plattr.target import Target


def build_database_secret(target: Target, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the Secret whose keys become environment variables; `values` are plain text, not base64."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": build_metadata(target, target.names.database_secret, labels={FEATURE_LABEL: "database"}),
        "type": "Opaque",
        # Not stringData: a key taken out of it stays in the Secret under server-side apply.
        # https://github.com/kubernetes/kubernetes/issues/108008
        "data": {key: b64encode(value.encode()).decode() for key, value in values.items()},
    }
