"""The ConfigMap that carries a feature's environment variables."""

from collections.abc import Mapping
from typing import Any

from plattr.manifests.metadata import FEATURE_LABEL, build_metadata
from plattr.target import Target


def build_config_map(target: Target, feature: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return a feature's ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(target, target.names.config_map(feature), labels={FEATURE_LABEL: feature}),
        "data": dict(values),
    }
