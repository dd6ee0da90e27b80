"""The limits of a preview in its own namespace: quota, limit range, network policy.

Without them, users could avoid a quota on the parent's namespace by creating many previews.
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
    """Return the LimitRange; its defaults are for containers without resources, which a quota refuses."""
    metadata = build_metadata(target, PREVIEW_LIMITS)
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}}


def build_network_policy(target: Target, rules: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the NetworkPolicy of all pods: it denies what the rules do not allow, in both directions."""
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
