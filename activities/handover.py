"""Hand over hosts between objects that wait for each other in a ring.

Applications that swap their hosts, two or several, would otherwise wait for each other for ever. In a ring, an object
gives its old host to the object that waits for it, even if its own new host is still taken. Outside a ring, an object
keeps its old host until it has the new one. Otherwise it would have no host if the new one stays with its holder.
"""

from activities.loading import TargetLoader
from activities.ownership import belongs_to
from clients.claim_release import waiting_for
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import INGRESSES, Json
from plattr.claims import Claim, claims_of, host_claim
from plattr.errors import InvalidSpec, ParentNotFound, StillDeleting, Superseded
from plattr.features import ClaimKind
from plattr.marks import Mark, estate_of
from plattr.objects import ObjectReference, parse_key
from plattr.target import Target

# 8: swaps involve two objects, or a few. Each member costs every refused attempt two reads.
LONGEST_RING = 8


class Handover:
    """Find the rings of objects in which each object asks for the host that the next one has left."""

    def __init__(self, kube: KubeClient, claim_store: ClaimStore, loader: TargetLoader) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._loader = loader

    async def hand_over_left_host(self, target: Target) -> None:
        """Remove the Ingresses of the host that the target has left, then release it to the last member of its ring.

        Raises:
            StillDeleting: an Ingress is held, for example by the finalizer of a load balancer's controller.
            Conflict: a claim or an Ingress changed during this attempt.
        """
        estate, wanted = estate_of(target.owner), host_claim(target)
        held = {each.claim for each in await self._claim_store.held_by(estate, ClaimKind.HOST)}
        if not held or wanted in held:
            return
        claim = await self._closing(target, held)
        if claim is None or await self._lacks_more(target):
            return
        names = target.names
        for name in (names.stem, names.api_ingress):
            body = await self._kube.get(INGRESSES, name, names.namespace)
            if body is None or not belongs_to(body, estate) or claim.name not in _hosts_of(body):
                continue
            await self._kube.delete(INGRESSES, name, names.namespace, uid=body["metadata"]["uid"])
            found = await self._kube.get(INGRESSES, name, names.namespace)
            if found is not None and found["metadata"]["uid"] == body["metadata"]["uid"]:
                raise StillDeleting(f"cannot give back host {claim.name!r}: Ingress {name!r} is still there")
        await self._claim_store.release(estate, [claim])

    async def _closing(self, target: Target, held: set[Claim]) -> Claim | None:
        """Return which host of the target closes its ring; None when there is no ring, or an outsider waits in it."""
        claim, members = host_claim(target), [target.owner.reference]
        waiting: dict[Claim, tuple[ObjectReference, ...]] = {}
        for _ in range(LONGEST_RING):
            found = await self._claim_store.marked(claim)
            if found is None:
                # The host is free, so whoever asks for it gets it in a moment.
                return None
            lease, mark = found
            waiting[claim] = waiting_for(lease)
            if claim in held:
                # A member that does not wait for the host yet would get no reconcile request.
                is_closed = members[-1] in waiting[claim] and not await self._outsider(waiting, members)
                return claim if is_closed else None
            holder = await self._holder(mark)
            # Either the holder's spec keeps the host, or the holder is a member already. Then the ring does not include
            # the target, and when that ring ends, it frees the host that the target wants.
            if holder is None or holder.owner.reference in members or host_claim(holder) == claim:
                return None
            if await self._lacks_more(holder):
                return None
            members.append(holder.owner.reference)
            claim = host_claim(holder)
        return None

    async def _holder(self, mark: Mark) -> Target | None:
        """Return what the holder of a host asks for now; None when no run carries out its spec now."""
        reference = parse_key(mark.key)
        target = await self._desired_target(reference) if reference is not None else None
        return target if target is not None and estate_of(target.owner).holds(mark) else None

    async def _desired_target(self, reference: ObjectReference) -> Target | None:
        custom_object = await self._loader.read(reference)
        if custom_object is None or custom_object.is_deleting or custom_object.is_paused:
            return None
        try:
            return await self._loader.target_of(custom_object)
        except (InvalidSpec, ParentNotFound, Superseded):
            return None

    async def _lacks_more(self, target: Target) -> bool:
        """Tell whether another owner has a further name that the target needs: then a free host would not help it."""
        held = {each.claim for each in await self._claim_store.held_by(estate_of(target.owner))}
        missing = [claim for claim in claims_of(target) if claim not in held and claim != host_claim(target)]
        return any([await self._claim_store.marked(claim) is not None for claim in missing])

    async def _outsider(
        self, waiting: dict[Claim, tuple[ObjectReference, ...]], members: list[ObjectReference]
    ) -> bool:
        """Tell whether a non-member waits for a host of the ring.

        The non-member could get the host first, and a member would lose all its hosts.
        """
        for claim, references in waiting.items():
            for reference in references:
                target_now = None if reference in members else await self._desired_target(reference)
                if target_now is not None and host_claim(target_now) == claim:
                    return True
        return False


def _hosts_of(ingress: Json) -> set[str]:
    return {rule.get("host", "") for rule in ingress.get("spec", {}).get("rules") or []}
