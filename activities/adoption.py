"""Take over for an object what bears its names but is another owner's, only after a person's approval."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from temporalio import activity

from activities import adoptables
from activities.adoptables import Marked
from activities.loading import TargetLoader
from clients.claim_store import ClaimStore
from clients.installation import LIVE_SECONDS
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.resources import custom_resource
from plattr import sql_installations
from plattr.adoption import Adoptable, Adoption, AdoptionInput
from plattr.errors import Superseded
from plattr.features import Step
from plattr.marks import Mark, estate_of, holder_words
from plattr.objects import ObjectReference
from plattr.target import Target

# Returns what one backend has under the names of a feature, no matter who owns it.
Finder = Callable[[Target], Awaitable[Sequence[Marked]]]


class AdoptionActivities:
    """Look for what an object could take over, and take it over."""

    def __init__(
        self,
        loader: TargetLoader,
        kube: KubeClient,
        claim_store: ClaimStore,
        postgres: PostgresClient,
        finders: Mapping[Step, Finder],
    ) -> None:
        self._loader = loader
        self._kube = kube
        self._claim_store = claim_store
        self._postgres = postgres
        self._finders = finders

    @activity.defn
    async def adopt_resources(self, adoption: AdoptionInput) -> Adoption:
        """Write the object's mark on what was approved and has not changed since; a second run writes nothing.

        Everything else stays as it is: the run that follows handles passwords, rights and settings.

        Raises:
            Superseded: the object is gone, or is being deleted.
            InvalidSpec: a rule is broken, in the object or in a preview's parent.
            Conflict: something changed during this attempt.
        """
        target = await self._target(adoption.reference)
        approved = {(each.what, each.fingerprint) for each in adoption.approved}
        found: list[Adoptable] = []
        kept: set[str] = set()
        obstacles: list[str] = []
        for marked in await self._foreign(target):
            each = Adoptable.of(marked.what, marked.mark, await self._words(marked.mark, target))
            obstacle = marked.obstacle or await self._living_holder(marked, target)
            if obstacle:
                obstacles.append(f"{each.what} belongs to {each.holder}: {obstacle}")
                kept.add(each.what)
            elif (each.what, each.fingerprint) in approved:
                await marked.take()
            else:
                found.append(each)
                kept.add(each.what)
        # Include what an earlier attempt took, whose worker died before it could report.
        taken = tuple(each for each in adoption.approved if each.what not in kept)
        return Adoption(found=tuple(found), taken=taken, obstacles=tuple(obstacles))

    async def _target(self, reference: ObjectReference) -> Target:
        custom_object = await self._loader.read(reference)
        if custom_object is None or custom_object.is_deleting:
            state = "does not exist" if custom_object is None else "is being deleted"
            raise Superseded(f"cannot take anything over for {reference}: it {state}")
        return await self._loader.target_of(custom_object)

    async def _foreign(self, target: Target) -> Sequence[Marked]:
        """Return what belongs to others, the claims first, so that no third object takes a name in between."""
        found = [
            *await adoptables.marked_claims(self._claim_store, target),
            *[marked for find in self._finders.values() for marked in await find(target)],
            *await adoptables.marked_objects(self._kube, target),
        ]
        estate = estate_of(target.owner)
        return [marked for marked in found if not estate.holds(marked.mark)]

    async def _living_holder(self, marked: Marked, target: Target) -> str:
        holder = adoptables.former_holder(marked, target.owner)
        if holder is None:
            return ""
        body = await self._kube.get(custom_resource(holder.kind), holder.name, holder.namespace)
        return "" if body is None else "that object still exists; delete it with deletionPolicy Retain first"

    async def _words(self, mark: Mark | None, target: Target) -> str:
        """Return the owner of a resource, and for another cluster also whether that cluster is alive.

        Plattr cannot see into another cluster. A live cluster may have given up this object, so a person must judge.
        """
        words = holder_words(mark, target.owner)
        if mark is None or mark.cluster == target.owner.cluster:
            return words
        async with self._postgres.transaction("read which clusters are alive") as transaction:
            rows = await transaction.fetch(sql_installations.SILENT_SECONDS, cluster=mark.cluster)
        is_alive = bool(rows) and rows[0]["seconds"] <= LIVE_SECONDS
        return f"{words}, WHICH IS ALIVE" if is_alive else words
