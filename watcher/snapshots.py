"""What the watcher remembers of an object: a few fields, never the body, so that memory stays flat."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from clients.resources import Json
from plattr import naming
from plattr.errors import InvalidSpec, NameTooLong, ParentNotFound
from plattr.objects import FINALIZER, PAUSED_ANNOTATION, Kind, ObjectReference, parse_key
from plattr.status import ConditionType, Phase
from plattr.target import KIND_LABEL, OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL

# The condition does not say whose spec breaks a rule, the preview's own or its parent's.
_BY_PARENT = frozenset({ParentNotFound.reason, InvalidSpec.reason, NameTooLong.reason})

# Namespace and name.
Place = tuple[str, str]

_KINDS = {kind.lower(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class ObjectRevision:
    """What a reconcile request was for: something else means that there is something new to do.

    The UID comes first: a re-created object begins again at generation 1. The status and the finalizers are not
    in it, so the worker's own writes never count as a change.
    """

    uid: str
    generation: int
    is_deleting: bool


@dataclass(frozen=True, slots=True)
class ObjectSnapshot:
    """An Application or a PreviewEnvironment as it was last seen."""

    reference: ObjectReference
    revision: ObjectRevision
    is_paused: bool
    has_finalizer: bool
    phase: str
    observed_generation: int
    is_deployment_refused: bool
    """DeploymentReady is False: the workload is why the object is not Running."""
    awaited_parent: ObjectReference | None
    """The Application of a preview that was refused as a whole: it may lack it, or break a rule because of it."""
    place: Place | None
    """Its Deployment's; None: its spec does not say."""
    environment: str
    resource_version: str
    created_at: float
    """By the API server's clock, in seconds since 1970."""

    @property
    def is_deleting(self) -> bool:
        """Tell whether the API server has been asked to delete it."""
        return self.revision.is_deleting

    @property
    def is_settled(self) -> bool:
        """Tell whether the last run for this very spec ended in Running."""
        return (
            not self.is_deleting
            and self.phase == Phase.RUNNING
            and self.observed_generation == self.revision.generation
        )


def observe(kind: Kind, body: Json) -> ObjectSnapshot:
    """Read an object as the API server sends it; a status that nobody wrote yet is all defaults."""
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = status.get("conditions") or []
    reference = ObjectReference(kind=kind, namespace=metadata["namespace"], name=metadata["name"])
    return ObjectSnapshot(
        reference=reference,
        revision=ObjectRevision(
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            is_deleting="deletionTimestamp" in metadata,
        ),
        is_paused=(metadata.get("annotations") or {}).get(PAUSED_ANNOTATION, "").lower() == "true",
        has_finalizer=FINALIZER in metadata.get("finalizers", ()),
        phase=status.get("phase", ""),
        observed_generation=status.get("observedGeneration", 0),
        is_deployment_refused=any(
            condition.get("type") == ConditionType.DEPLOYMENT and condition.get("status") == "False"
            for condition in conditions
        ),
        awaited_parent=_awaited_parent(kind, body, conditions),
        place=naming.deployment_place(reference, body.get("spec") or {}),
        environment="preview" if kind is Kind.PREVIEW else (body.get("spec") or {}).get("environment", ""),
        resource_version=metadata.get("resourceVersion", ""),
        created_at=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
    )


def _awaited_parent(kind: Kind, body: Json, conditions: Iterable[Json]) -> ObjectReference | None:
    parent = (body.get("spec") or {}).get("applicationRef")
    is_refused = any(
        each.get("type") == ConditionType.READY and each.get("reason") in _BY_PARENT for each in conditions
    )
    if kind is not Kind.PREVIEW or not is_refused or not parent:
        return None
    return ObjectReference(kind=Kind.APPLICATION, namespace=body["metadata"]["namespace"], name=parent)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One that Plattr, or somebody who says so, has made."""

    place: Place
    owner: ObjectReference | None
    """By its labels; None when they name no owner."""
    is_available: bool


def observe_deployment(body: Json) -> Deployment:
    """Read a Deployment as the API server sends it."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    kind = _KINDS.get(labels.get(KIND_LABEL, ""))
    conditions = (body.get("status") or {}).get("conditions") or []
    return Deployment(
        place=(metadata["namespace"], metadata["name"]),
        owner=parse_key(f"{labels.get(OWNER_NAMESPACE_LABEL)}/{kind}/{labels.get(OWNER_NAME_LABEL)}"),
        is_available=any(
            condition.get("type") == "Available" and condition.get("status") == "True" for condition in conditions
        ),
    )
