"""The Deployment of an application."""

from typing import Any

from plattr.connections import SURGE_PERCENT
from plattr.manifests.checksum import CHECKSUM_ANNOTATION
from plattr.manifests.metadata import build_metadata
from plattr.manifests.pod import Placeholder, build_pod_spec
from plattr.target import Target

# 300: the pull of an image of 1 GB takes a minute or two, and the startup probe allows two more.
PROGRESS_DEADLINE_SECONDS = 300


def build_deployment(target: Target, *, placeholder: Placeholder, checksum: str, postgrest_pool: int) -> dict[str, Any]:
    """Return the Deployment, without `replicas`, because the autoscaler sets them.

    Args:
        target: what to run.
        placeholder: the page to show while the spec names no image.
        checksum: of what the pods read at their start; a new checksum rolls the pods.
        postgrest_pool: how many connections each sidecar's pool may have.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(target, target.names.stem),
        "spec": {
            "selector": {"matchLabels": target.selector_labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": f"{SURGE_PERCENT}%"},
            },
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "template": {
                # The pods do not carry the owner's UID. Otherwise adoption by a re-created object would roll them.
                "metadata": {"labels": target.labels, "annotations": {CHECKSUM_ANNOTATION: checksum}},
                "spec": build_pod_spec(target, placeholder, postgrest_pool=postgrest_pool),
            },
        },
    }
