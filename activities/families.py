"""Whose the previews of an application's name are: of the namespace that claimed the name first, in any environment.

A pull request's names carry neither its namespace nor its environment, and an application's environments often live
in several namespaces. The claim of the family is the Application's, beside its other claims; of Applications of one
name the first has it, the others live without, and their previews are refused.
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
    """Say which claims of families a target needs, refuse what is in another's, and pass on what is given back."""

    def __init__(self, kube: KubeClient, claim_store: ClaimStore) -> None:
        self._kube = kube
        self._claim_store = claim_store

    async def ensure_own(self, target: Target) -> None:
        """Return when no name of the target is a preview's of another namespace's application.

        Raises:
            OwnedElsewhere: one is, and the target does not have it yet; it is woken when the family is given back.
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
        """Return the family's claim as one that the target needs, or as one that it takes if it is free.

        In environment preview an Application's own names are beside its previews': it needs the family.
        """
        if target.is_preview:
            return (), ()
        claims = (previews_claim(target.owner.reference.name),)
        return (claims, ()) if target.spec.environment is Environment.PREVIEW else ((), claims)

    async def pass_on(self, reference: ObjectReference) -> None:
        """Give the family of an Application that went to the oldest one of its name; the second time does nothing."""
        claim = previews_claim(reference.name)
        if reference.kind is not Kind.APPLICATION or await self._claim_store.holder_of(claim) is not None:
            return
        selector = f"metadata.name={reference.name}"
        pages = self._kube.pages(APPLICATIONS, field_selector=selector, metadata_only=True)
        # One without our finalizer was never accepted, and what it is given nobody would give back.
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
            # It may have gone meanwhile; whoever deletes it from here on finds the claim.
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
