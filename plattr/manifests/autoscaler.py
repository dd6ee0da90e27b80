"""The HorizontalPodAutoscaler: nothing else sets the number of replicas."""

from typing import Any

from plattr.manifests.metadata import build_metadata
from plattr.target import Target


def build_autoscaler(target: Target) -> dict[str, Any]:
    """Return the autoscaler with the spec's limits and its CPU target."""
    scaling = target.spec.scaling
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": build_metadata(target, target.names.stem),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target.names.stem},
            "minReplicas": scaling.min,
            "maxReplicas": scaling.max,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": scaling.target_cpu},
                    },
                }
            ],
        },
    }
