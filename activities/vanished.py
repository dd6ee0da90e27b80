"""Find objects that are gone without a cleanup, because somebody removed their finalizer."""

from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import custom_resource
from plattr.claims import goes_with_object
from plattr.objects import Kind, ObjectReference


async def find_vanished(kube: KubeClient, claim_store: ClaimStore, namespace: str = "") -> list[ObjectReference]:
    """Return the holders of claims whose object is gone, in one namespace or in all.

    Data that an object retained when it was deleted stays on purpose and does not count.

    Raises:
        BackendRefused: the caller may not read the claim store, or may not list the objects.
    """
    # Read the claims before the objects. An object is older than its claims, and claims made later do not count.
    holders = {holder for holder in await claim_store.holders() if namespace in ("", holder.namespace)}
    for kind in Kind:
        async for page in kube.pages(custom_resource(kind), namespace, metadata_only=True):
            for body in page.items:
                metadata = body["metadata"]
                holders.discard(ObjectReference(kind=kind, namespace=metadata["namespace"], name=metadata["name"]))
    found = [holder for holder in holders if await _has_vanished(kube, claim_store, holder)]
    return sorted(found, key=lambda reference: reference.key)


async def _has_vanished(kube: KubeClient, claim_store: ClaimStore, holder: ObjectReference) -> bool:
    """Look again, because a cleanup may have ended between the two lists; it releases the claims before the object."""
    if await kube.get(custom_resource(holder.kind), holder.name, holder.namespace) is not None:
        return False
    return any(goes_with_object(held) for held in await claim_store.held_under(holder))
