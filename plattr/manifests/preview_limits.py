"""What keeps a preview within bounds in the namespace that it has for itself: quota, limits, network policy.

Else a quota on the parent's namespace is escaped by as many previews as one likes.
"""

from typing import Any

from plattr.manifests.metadata import build_metadata
from plattr.naming import PREVIEW_LIMITS
from plattr.target import Target


def build_resource_quota(target: Target, hard: dict[str, str]) -> dict[str, Any]:
    """Return the ResourceQuota of the whole namespace."""
    metadata = build_metadata(target, PREVIEW_LIMITS)
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


def build_limit_range(target: Target, limits: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the LimitRange; its defaults are for containers that name no resources, which a quota refuses."""
    metadata = build_metadata(target, PREVIEW_LIMITS)
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}}


def build_network_policy(target: Target, rules: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the NetworkPolicy of all pods: what the rules do not let through is denied, both ways."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(target, PREVIEW_LIMITS),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": rules.get("ingress", []),
            "egress": rules.get("egress", []),
        },
    }
