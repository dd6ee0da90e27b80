"""What the watcher remembers of an object: a few fields, never the body, so that memory stays flat."""

from dataclasses import dataclass

from clients.resources import Json
from plattr import naming
from plattr.errors import InvalidSpec, NameTooLong, ParentNotFound
from plattr.features import ConditionType
from plattr.objects import CustomObject, Kind, ObjectReference, parse_key
from plattr.status import has_failed
from plattr.target import KIND_LABEL, OWNER_NAME_LABEL, OWNER_NAMESPACE_LABEL

# The condition does not say which spec breaks a rule: the preview's own or its parent's.
_BY_PARENT = frozenset({ParentNotFound.reason, InvalidSpec.reason, NameTooLong.reason})

# Namespace and name.
Place = tuple[str, str]

_KINDS = {kind.lower(): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class ObjectRevision:
    """The state of an object that a reconcile request was for. A different revision means new work.

    The UID comes first, because a re-created object begins at generation 1 again. Status and finalizers are not part of
    it, so the worker's own writes never count as a change.
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
    is_settled: bool
    """The last run for exactly this spec ended in Running."""
    has_finalizer: bool
    phase: str
    observed_generation: int
    is_deployment_refused: bool
    """DeploymentReady is False: the workload is the reason why the object is not Running."""
    awaited_parent: ObjectReference | None
    """The parent of a preview that was refused as a whole: it may be missing, or cause a broken rule."""
    place: Place | None
    """The namespace and name of its Deployment; None if the spec does not give them."""
    environment: str
    resource_version: str
    created_at: float
    """In seconds since 1970, by the API server's clock."""

    @property
    def is_deleting(self) -> bool:
        """Tell whether the API server has been asked to delete it."""
        return self.revision.is_deleting


def take_snapshot(kind: Kind, body: Json) -> ObjectSnapshot:
    """Extract what the watcher needs from an object as the API server sends it."""
    custom_object = CustomObject.from_api(kind, body)
    metadata = custom_object.metadata
    return ObjectSnapshot(
        reference=custom_object.reference,
        revision=ObjectRevision(
            uid=metadata.uid, generation=metadata.generation, is_deleting=custom_object.is_deleting
        ),
        is_paused=custom_object.is_paused,
        is_settled=custom_object.is_settled,
        has_finalizer=custom_object.has_finalizer,
        phase=custom_object.phase,
        observed_generation=custom_object.observed_generation,
        is_deployment_refused=has_failed(custom_object, ConditionType.DEPLOYMENT),
        awaited_parent=_awaited_parent(custom_object),
        place=naming.deployment_place(custom_object.reference, custom_object.spec),
        environment=custom_object.environment,
        resource_version=metadata.resource_version,
        created_at=metadata.creation_timestamp.timestamp(),
    )


def _awaited_parent(custom_object: CustomObject) -> ObjectReference | None:
    parent = custom_object.spec.get("applicationRef")
    is_refused = any(
        each.get("type") == ConditionType.READY and each.get("reason") in _BY_PARENT
        for each in custom_object.conditions
    )
    if custom_object.kind is not Kind.PREVIEW or not is_refused or not parent:
        return None
    return ObjectReference(kind=Kind.APPLICATION, namespace=custom_object.metadata.namespace, name=parent)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Deployment that was made by Plattr, or that claims so in its labels."""

    place: Place
    owner: ObjectReference | None
    """According to its labels; None if they name no owner."""
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
