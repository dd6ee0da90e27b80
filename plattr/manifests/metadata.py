"""The metadata that every namespaced manifest of a target begins with."""

from collections.abc import Mapping
from typing import Any

from plattr.objects import GROUP
from plattr.target import Target

# Which feature a Secret or ConfigMap belongs to.
FEATURE_LABEL = f"{GROUP}/feature"


def build_metadata(
    target: Target,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return name, namespace, the owner's labels and annotations, and the additional ones given."""
    return {
        "name": name,
        "namespace": target.names.namespace,
        "labels": target.labels | dict(labels or {}),
        "annotations": target.annotations | dict(annotations or {}),
    }
