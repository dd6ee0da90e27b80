"""The applications that the benchmarks apply."""

from datetime import UTC, datetime
from typing import Any

from plattr.naming import workflow_id
from plattr.objects import CustomObject, Kind, ObjectReference
from plattr.target import Target, application_target

BUCKETS = [{"name": "uploads", "public": True}, {"name": "private"}]
STORAGE: dict[str, Any] = {"storage": {"enabled": True, "buckets": BUCKETS}}
KINDS: dict[str, dict[str, Any]] = {"without auth": STORAGE, "with auth": STORAGE | {"auth": {"enabled": True}}}
# An application with a workload only.
THIN: dict[str, Any] = {
    "repository": "https://git.example/bench",
    "framework": "docker",
    "environment": "staging",
    "imageRef": "registry.example/bench:1",
    "database": {"enabled": False},
}
COMMON: dict[str, Any] = THIN | {
    "database": {"enabled": True},
    "redis": {"enabled": True},
    "search": {"enabled": True},
}
NEXT_IMAGE = {"imageRef": "registry.example/bench:2"}


def manifest(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the object as a person would apply it."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "platform.internal/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}


def target_of(namespace: str, name: str, spec: dict[str, Any]) -> Target:
    """Return the target that Plattr would work towards. The floor creates it by itself."""
    metadata = {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": datetime.now(UTC)}
    custom_object = CustomObject.from_api(Kind.APPLICATION, {"metadata": metadata, "spec": spec})
    return application_target(custom_object, base_domain="bench.localhost")


def run_of(namespace: str, name: str) -> str:
    """Return the id of the application's run in Temporal."""
    return workflow_id(ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=name))
