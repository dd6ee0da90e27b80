"""Decide which namespace owns the preview names of an application: the one that claimed the application's name first.

The family of an application is all its previews, in any environment. A pull request's names carry neither its
namespace nor its environment, and an application's environments often live in several namespaces. The Application
holds the claim of its family beside its other claims. Among Applications of one name, the first has the family. The
others run without it, and their previews are refused.
"""

from collections.abc import Sequence

from activities.ownership import without_marks
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import APPLICATIONS, NAMESPACES
from plattr.claims import Claim, claims_of, other_families, previews_claim
from plattr.features import ClaimKind
from plattr.marks import estate_of, owned_elsewhere
from plattr.objects import CustomObject, Kind, ObjectReference
from plattr.spec import Environment
from plattr.target import Target


class Families:
    """Say which family claims a target needs, refuse names of another family, and pass on released families."""

    def __init__(self, kube: KubeClient, claim_store: ClaimStore) -> None:
        self._kube = kube
        self._claim_store = claim_store

    async def ensure_own(self, target: Target) -> None:
        """Return when no name of the target belongs to a preview of another namespace's application.

        Raises:
            OwnedElsewhere: a name does, and the target does not hold it yet. When the family is released, the target's
                run gets a reconcile request.
        """
        own = [target.parent] if target.is_preview else []
        for application in (*own, *other_families(target)):
            holder = await self._claim_store.holder_of(previews_claim(application))
            namespace = target.owner.reference.namespace
            if holder is None or holder.namespace == namespace or await self._has_all(target):
                continue
            await self._claim_store.wait_for(previews_claim(application), estate_of(target.owner))
            error = owned_elsewhere(
                f"the name {application!r} of an application with previews",
                target.owner,
                f"namespace {holder.namespace!r}, which claimed it first",
                "make the preview there, or choose another name for the application",
            )
            error.condition = ClaimKind.PREVIEWS.condition
            raise error

    @staticmethod
    def claims_of(target: Target) -> tuple[Sequence[Claim], Sequence[Claim]]:
        """Return the family's claim as needed by the target, or as optional: taken only if it is free.

        In environment preview, an Application's own names are among its previews' names, so it needs the family.
        """
        if target.is_preview:
            return (), ()
        claims = (previews_claim(target.owner.reference.name),)
        return (claims, ()) if target.spec.environment is Environment.PREVIEW else ((), claims)

    async def pass_on(self, reference: ObjectReference) -> None:
        """Give the family of a removed Application to the oldest one of its name; a second call does nothing."""
        claim = previews_claim(reference.name)
        if reference.kind is not Kind.APPLICATION or await self._claim_store.holder_of(claim) is not None:
            return
        selector = f"metadata.name={reference.name}"
        pages = self._kube.pages(APPLICATIONS, field_selector=selector, metadata_only=True)
        # An Application without Plattr's finalizer was never accepted, and nothing would release its claim.
        living = [
            CustomObject.from_api(Kind.APPLICATION, without_marks(body)) async for page in pages for body in page.items
        ]
        heirs = [each for each in living if each.has_finalizer and not each.is_deleting]
        for heir in sorted(heirs, key=lambda one: (one.metadata.creation_timestamp, one.reference.key)):
            namespace = await self._kube.get(NAMESPACES, heir.metadata.namespace)
            if namespace is None:
                continue
            home = {"cluster": self._kube.cluster, "namespace_uid": namespace["metadata"]["uid"]}
            owner = heir.model_copy(update=home).owner
            given = await self._claim_store.acquire(owner, (), optional=(claim,))
            # The heir may be gone meanwhile. If it is deleted later, its cleanup finds the claim.
            if await self._lives(heir):
                return
            await self._claim_store.release(estate_of(owner), given.new)

    async def _has_all(self, target: Target) -> bool:
        held = {each.claim for each in await self._claim_store.held_by(estate_of(target.owner))}
        return held.issuperset(claims_of(target))

    async def _lives(self, custom_object: CustomObject) -> bool:
        reference = custom_object.reference
        body = await self._kube.get(APPLICATIONS, reference.name, reference.namespace)
        if body is None:
            return False
        found = CustomObject.from_api(Kind.APPLICATION, body)
        return found.metadata.uid == custom_object.metadata.uid and not found.is_deleting
