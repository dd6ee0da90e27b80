"""Objects as the API server sends them, for the tests that need no server."""

from typing import Any

from clients.resources import Json
from plattr.objects import FINALIZER, PAUSED_ANNOTATION, Kind, ObjectReference
from plattr.target import owner_labels
from watcher.object_tracker import ObjectTracker
from watcher.snapshots import observe_deployment, take_snapshot


class BodyFleet(ObjectTracker):
    """The tracker, fed with objects as the API server sends them; its own calls take less of them."""

    def replace(self, kind: Kind, bodies: list[Json]) -> None:  # type: ignore[override]
        super().replace(kind, [take_snapshot(kind, body) for body in bodies])

    def change(self, kind: Kind, event: str, body: Json) -> None:  # type: ignore[override]
        super().change(event, take_snapshot(kind, body))

    def replace_deployments(self, bodies: list[Json]) -> None:
        self.deployments.replace([observe_deployment(body) for body in bodies])

    def change_deployment(self, event: str, body: Json) -> None:
        self.deployments.change(event, observe_deployment(body))

    def confirm(self) -> None:
        self.deployments.confirm()


def custom_object(
    name: str = "shop",
    *,
    uid: str = "u1",
    generation: int = 1,
    deleting: bool = False,
    paused: bool = False,
    finalizer: bool = True,
    phase: str = "",
    observed: int | None = None,
    deployment_ready: str | None = None,
    version: str = "1",
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "namespace": "team",
        "name": name,
        "uid": uid,
        "generation": generation,
        "resourceVersion": version,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if paused:
        metadata["annotations"] = {PAUSED_ANNOTATION: "true"}
    if finalizer:
        metadata["finalizers"] = [FINALIZER]
    body: dict[str, Any] = {"metadata": metadata, "spec": {"environment": "production"}}
    if phase:
        conditions = []
        if deployment_ready is not None:
            conditions.append({"type": "DeploymentReady", "status": deployment_ready})
        observed = generation if observed is None else observed
        body["status"] = {"phase": phase, "observedGeneration": observed, "conditions": conditions}
    return body


def orphan(
    name: str = "shop-1", parent: str = "shop", *, reason: str = "ParentNotFound", **more: Any
) -> dict[str, Any]:
    """A preview that was refused because its parent is missing, or for another reason."""
    body = custom_object(name, phase="Failed", **more)
    body["spec"] = {"applicationRef": parent}
    body["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": reason}]
    return body


def deployment(name: str = "shop", *, available: bool, kind: Kind = Kind.APPLICATION) -> dict[str, Any]:
    reference = ObjectReference(kind=kind, namespace="team", name=name)
    return {
        "metadata": {"namespace": "team", "name": name, "labels": owner_labels(reference)},
        "status": {"conditions": [{"type": "Available", "status": "True" if available else "False"}]},
    }
