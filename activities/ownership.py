"""What one owner has in Kubernetes: labels find it, an annotation proves it, and a check precedes each write."""

from collections.abc import Mapping, Sequence
from typing import Any

from clients.kube import KubeClient
from clients.resources import NAMESPACES, Json, Resource, custom_resource, is_deleting
from plattr.errors import Conflict, OwnedElsewhere, StillDeleting
from plattr.features import ConditionType
from plattr.marks import Estate, ensure_own
from plattr.objects import Kind, ObjectReference, Owner
from plattr.steps import CleanupStepInput
from plattr.target import (
    OWNER_ANNOTATION,
    OWNER_CLUSTER_ANNOTATION,
    OWNER_NAMESPACE_UID_ANNOTATION,
    OWNER_UID_ANNOTATION,
    mark_of,
    owner_labels,
)

_IDENTITY = ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_OWNER_MARKS = (OWNER_ANNOTATION, OWNER_UID_ANNOTATION, OWNER_CLUSTER_ANNOTATION, OWNER_NAMESPACE_UID_ANNOTATION)
# 512: an owner's key has at most 340 characters. 8: the finalizers only serve a message.
_LONGEST_MARK = 512
_FINALIZERS = 8


def owner_selector(reference: ObjectReference, more: Mapping[str, str] | None = None) -> str:
    """Return the label selector of everything that one owner has."""
    return ",".join(f"{label}={text}" for label, text in (owner_labels(reference) | dict(more or {})).items())


def belongs_to(body: Json, estate: Estate) -> bool:
    """Tell whether an object's mark names this owner, with any uid."""
    return estate.holds(mark_of(body))


def ensure_adoptable(
    resource: Resource, body: Json | None, owner: Owner, *, condition: ConditionType | None = None
) -> None:
    """Return when the name is free or belongs to the owner.

    Raises:
        OwnedElsewhere: the object belongs to another owner, or to none. The error carries `condition` if it is given.
    """
    if body is None:
        return
    metadata = body["metadata"]
    try:
        ensure_own(resource.describe(metadata["name"], metadata.get("namespace", "")), mark_of(body), owner)
    except OwnedElsewhere as error:
        error.condition = condition
        raise


def holds(existing: Any, wanted: Any) -> bool:
    """Tell whether an object holds everything that is wanted; additions of others do not count."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(holds(existing.get(key), value) for key, value in wanted.items())
    return bool(existing == wanted)


async def list_owned(
    kube: KubeClient,
    resource: Resource,
    estate: Estate,
    namespace: str = "",
    *,
    labels: Mapping[str, str] | None = None,
    metadata_only: bool = True,
) -> list[Json]:
    """Return the owner's objects; leave out an object with the labels whose annotation does not name this owner.

    All labels and annotations except the owner's marks are cut off: there may be thousands of copies of a quarter of a
    megabyte each.
    """
    pages = kube.pages(
        resource, namespace, label_selector=owner_selector(estate.reference, labels), metadata_only=metadata_only
    )
    return [without_marks(body) async for page in pages for body in page.items if belongs_to(body, estate)]


def without_marks(body: Json) -> Json:
    """Return an object without metadata that anybody could fill with long text; the owner's mark stays."""
    metadata = {field: body["metadata"][field] for field in _IDENTITY if field in body["metadata"]}
    annotations = body["metadata"].get("annotations", {})
    marks = {name: annotations[name][:_LONGEST_MARK] for name in _OWNER_MARKS if name in annotations}
    finalizers = body["metadata"].get("finalizers", [])[:_FINALIZERS]
    return {**body, "metadata": metadata | {"annotations": marks, "finalizers": finalizers}}


async def namespaces_of(kube: KubeClient, estate: Estate) -> list[str]:
    """Return the namespaces of an owner's workload: an Application's own, or those made for a preview."""
    if estate.reference.kind is Kind.APPLICATION:
        return [estate.reference.namespace]
    return [body["metadata"]["name"] for body in await list_owned(kube, NAMESPACES, estate)]


async def find_live_uid(kube: KubeClient, step: CleanupStepInput) -> str | None:
    """Return the uid of a live object that has the name again, whose resources a cleanup must leave alone.

    None when no object has the name, when that object is being deleted, or when it is the object to clean up.
    """
    reference = step.reference
    body = await kube.get(custom_resource(reference.kind), reference.name, reference.namespace)
    if body is None or is_deleting(body) or body["metadata"]["uid"] == step.uid:
        return None
    return str(body["metadata"]["uid"])


async def delete_all(kube: KubeClient, resource: Resource, bodies: list[Json], *, live_uid: str | None) -> list[Json]:
    """Delete the given objects, except those of the live object; return those that were to go.

    Each deletion names the uid that was read, so an object that has taken the name meanwhile stays.
    """
    going = [body for body in bodies if live_uid is None or _owner_uid(body) != live_uid]
    for body in going:
        metadata = body["metadata"]
        if is_deleting(body):
            continue
        try:
            await kube.delete(resource, metadata["name"], metadata.get("namespace", ""), uid=metadata["uid"])
        except Conflict:
            continue
    return going


async def remove_owned(
    kube: KubeClient,
    estate: Estate,
    resources: Sequence[Resource],
    *,
    live_uid: str | None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Delete everything that an owner has of these kinds, as `delete_all` does, and return when it is gone.

    Raises:
        StillDeleting: something is held, for example by somebody else's finalizer.
    """
    namespaces = await namespaces_of(kube, estate)
    places = [(resource, namespace) for namespace in namespaces for resource in resources]
    going = []
    # Delete everything before checking anything: an object that is held must not delay the others.
    for resource, namespace in places:
        found = await list_owned(kube, resource, estate, namespace, labels=labels)
        uids = {body["metadata"]["uid"] for body in await delete_all(kube, resource, found, live_uid=live_uid)}
        going += [(resource, namespace, uids)] if uids else []
    for resource, namespace, uids in going:
        for body in await list_owned(kube, resource, estate, namespace, labels=labels):
            metadata = body["metadata"]
            if metadata["uid"] in uids:
                held = ", ".join(metadata.get("finalizers", []))
                cause = f"finalizer {held} holds it" if held else "it is still there"
                raise StillDeleting(f"cannot delete {resource.describe(metadata['name'], namespace)}: {cause}")


def _owner_uid(body: Json) -> str | None:
    annotation: str | None = body["metadata"].get("annotations", {}).get(OWNER_UID_ANNOTATION)
    return annotation
