"""The claim store: one Lease for each external name, in Plattr's own namespace. Its creator owns the name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import NamedTuple

from clients.claim_lease import (
    CLAIM_KIND_LABEL,
    MADE_ANNOTATION,
    REFERENCES_ANNOTATION,
    build_lease,
    holder_mark,
    read_claim,
    tests_of_holder,
)
from clients.claim_release import (
    GIVING_BACK_ANNOTATION,
    TRIES,
    GivingBack,
    Wake,
    annotation_path,
    wake_nobody,
)
from clients.concurrency import all_of
from clients.kube import KubeClient
from clients.quarantine import (
    QUARANTINE_ANNOTATION,
    QUARANTINE_LABEL,
    UNANSWERED_ANNOTATION,
    end_of_late_call,
    ensure_out_of_quarantine,
    quarantine_end,
    quarantined,
)
from clients.resources import LEASES, Json
from clients.tracked_calls import TrackedCall, TrackedCalls
from plattr.claims import Claim, HeldClaim, goes_with_object
from plattr.errors import Conflict, NameQuarantined, OwnedElsewhere, StillDeleting
from plattr.features import ClaimKind
from plattr.marks import Estate, Mark, estate_of, foreign
from plattr.objects import ObjectReference, Owner, owner_named, parse_key
from plattr.target import (
    OWNER_ANNOTATION,
    owner_labels,
)


class Acquisition(NamedTuple):
    """What an owner holds after it has acquired its claims."""

    new: list[Claim]
    """The claims that it did not hold before."""
    held: list[HeldClaim]
    """The claims that it held before, whether requested now or not."""


class ClaimStore:
    """Claims, holds and releases names."""

    def __init__(self, kube: KubeClient, namespace: str, wake: Wake = wake_nobody) -> None:
        """Keep the claims in `namespace`; `wake` tells an object's run that a name it waits for may be free."""
        self._kube = kube
        self._namespace = namespace
        self._giving_back = GivingBack(kube, namespace, wake)
        self._calls = TrackedCalls(kube, namespace)

    async def acquire(
        self, owner: Owner, claims: Sequence[Claim], *, optional: Sequence[Claim] = (), is_retained: bool = False
    ) -> Acquisition:
        """Claim every name for the owner, and the optional names that are free; write only what differs.

        A claim of the same owner under another uid is taken over: the object was created again.

        Raises:
            NameQuarantined: a call about one of the names, made for a deleted object, may still take effect.
            OwnedElsewhere: another owner holds one of the names. No new name is claimed then. The error's `condition`
                tells which name it is. The object is woken when the name is released.
            StillDeleting: another owner holds one of the names, but is being deleted or is releasing the name now.
            Conflict: a claim changed since it was read.
        """
        leases = {lease["metadata"]["name"]: lease for lease in await self._leases_of(estate_of(owner))}
        missing = [claim for claim in claims if claim.lease_name not in leases]
        for claim in claims:
            if claim.lease_name in leases:
                ensure_out_of_quarantine(claim, leases[claim.lease_name], owner)
        if missing:
            await self._take(owner, missing, is_retained=is_retained)
        for claim in optional:
            if claim.lease_name not in leases:
                body = build_lease(claim, owner, self._namespace, is_retained=is_retained)
                if await self._kube.create(LEASES, body, self._namespace) is not None:
                    missing.append(claim)
        await all_of(
            self._settle(claim, leases[claim.lease_name], owner, is_retained=is_retained)
            for claim in (*claims, *optional)
            if claim.lease_name in leases
        )
        held = [read_claim(lease, owner.reference) for lease in leases.values()]
        return Acquisition(new=missing, held=[each for each in held if each.quarantined_until is None])

    async def held_by(self, estate: Estate, kind: ClaimKind | None = None) -> list[HeldClaim]:
        """Return the claims of an owner under any of its uids, of one kind or of all kinds."""
        held = [read_claim(lease, estate.reference) for lease in await self._leases_of(estate, kind)]
        return sorted(held, key=lambda one: one.claim.lease_name)

    async def held_under(self, reference: ObjectReference) -> list[HeldClaim]:
        """Return the claims of all objects of this name, in any cluster or namespace uid, for people to read."""
        held = [read_claim(lease, reference) for lease in await self._leases_under(reference)]
        return sorted(held, key=lambda one: one.claim.lease_name)

    async def holders(self) -> frozenset[ObjectReference]:
        """Return the holders of names that are released together with their object."""
        found = set()
        async for page in self._kube.pages(
            LEASES, self._namespace, label_selector=CLAIM_KIND_LABEL, metadata_only=True
        ):
            for lease in page.items:
                holder = parse_key(lease["metadata"].get("annotations", {}).get(OWNER_ANNOTATION, ""))
                if holder is not None and goes_with_object(read_claim(lease, holder)):
                    found.add(holder)
        return frozenset(found)

    async def holder_of(self, claim: Claim) -> ObjectReference | None:
        """Return the object that holds a name; None when the name is free."""
        lease = await self._read(claim)
        return None if lease is None else parse_key(holder_mark(lease).key)

    async def wait_for(self, claim: Claim, estate: Estate) -> Json | None:
        """Have an object woken when the holder releases a name; return the holder's Lease.

        Return None if no other owner holds the name any more.

        Raises:
            Conflict: the claim keeps changing.
        """
        for _ in range(TRIES):
            lease = await self._read(claim)
            if lease is None or estate.holds(holder_mark(lease)):
                return None
            # A claim without a holder is never released, so do not wait for it.
            if not holder_mark(lease).key or await self._giving_back.wait(lease, estate.reference):
                return lease
        raise Conflict(f"cannot claim {claim.kind} {claim.name!r} for {estate.reference}: it changes all the time")

    async def stop_waiting(self, reference: ObjectReference) -> None:
        """Stop waking an object for any name; a second call writes nothing.

        Raises:
            Conflict: a claim keeps changing.
        """
        await self._giving_back.stop_waiting(reference)

    async def marked(self, claim: Claim) -> tuple[Json, Mark] | None:
        """Return the Lease of a name and its owner mark; None when the name is free."""
        lease = await self._read(claim)
        return None if lease is None else (lease, holder_mark(lease))

    async def take_over(self, claim: Claim, lease: Json, owner: Owner, *, is_retained: bool) -> None:
        """Move another owner's claim to this owner, because a person asked for it.

        Raises:
            Conflict: the claim has changed since it was read.
        """
        wanted, present = build_lease(claim, owner, self._namespace, is_retained=is_retained), lease["metadata"]
        operations: list[Json] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": present["resourceVersion"]},
            {
                "op": "add",
                "path": "/metadata/labels",
                "value": present.get("labels", {}) | wanted["metadata"]["labels"],
            },
            {
                "op": "add",
                "path": "/metadata/annotations",
                "value": present.get("annotations", {}) | wanted["metadata"]["annotations"],
            },
            {"op": "add", "path": "/spec", "value": {**lease.get("spec", {}), **wanted["spec"]}},
        ]
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def note_made(self, estate: Estate, claim: Claim) -> None:
        """Record that the claim's owner creates the resource of this name; a second call writes nothing.

        Call it only if no resource had the name. Call it before the creation if the creation cannot write the owner
        mark, otherwise after the creation. A missing claim, or another owner's claim, stays as it is.
        """
        operations = [
            *tests_of_holder(estate),
            {"op": "add", "path": annotation_path(MADE_ANNOTATION), "value": "true"},
        ]
        # A conflict means that another owner holds the claim. A patch that changes nothing causes no conflict: the
        # API server keeps the resourceVersion.
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def note_references(self, estate: Estate, claim: Claim, record: str) -> None:
        """Record which objects of the user a run has read; a missing or another owner's claim stays as it is."""
        write: Json = {"op": "add", "path": annotation_path(REFERENCES_ANNOTATION), "value": record}
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, [*tests_of_holder(estate), write], self._namespace)

    async def noted_references(self) -> AsyncIterator[HeldClaim]:
        """Yield the claims of the workloads' names with the user's objects that the last run of each has read."""
        selector = f"{CLAIM_KIND_LABEL}={ClaimKind.INGRESS}"
        async for page in self._kube.pages(LEASES, self._namespace, label_selector=selector, metadata_only=True):
            for lease in page.items:
                annotations = lease["metadata"].get("annotations", {})
                holder = parse_key(annotations.get(OWNER_ANNOTATION, ""))
                if holder is not None and annotations.get(REFERENCES_ANNOTATION):
                    yield read_claim(lease, holder)

    def track_call(self, estate: Estate, claim: Claim) -> AbstractAsyncContextManager[TrackedCall]:
        """Record on a claim that a call about its name is in flight, as `clients.tracked_calls` describes."""
        return self._calls.track(estate, claim)

    async def quarantined(self) -> list[tuple[ObjectReference, datetime]]:
        """Return the last holder of each name in quarantine, and when the quarantine ends."""
        leases = await self._kube.list(LEASES, self._namespace, label_selector=QUARANTINE_LABEL)
        ends = [(parse_key(holder_mark(lease).key), quarantine_end(lease)) for lease in leases]
        return [(reference, end) for reference, end in ends if reference is not None and end is not None]

    async def release(self, estate: Estate, claims: Sequence[Claim]) -> datetime | None:
        """Release names and wake the objects that wait for them; free names and other owners' names stay as they are.

        A name with an unanswered call goes into quarantine instead. If the call takes effect late, it must not change
        the next owner's resource. The result is the time when the last quarantine ends. The caller then releases the
        name again.

        Raises:
            Conflict: a claim changed since it was read.
        """
        ends = await all_of(self._release(estate, claim) for claim in claims)
        return max((end for end in ends if end is not None), default=None)

    async def _read(self, claim: Claim) -> Json | None:
        return await self._kube.get(LEASES, claim.lease_name, self._namespace)

    async def _leases_of(self, estate: Estate, kind: ClaimKind | None = None) -> list[Json]:
        leases = await self._leases_under(estate.reference, kind)
        return [lease for lease in leases if estate.holds(holder_mark(lease))]

    async def _leases_under(self, reference: ObjectReference, kind: ClaimKind | None = None) -> list[Json]:
        labels = owner_labels(reference) | ({CLAIM_KIND_LABEL: kind} if kind else {})
        selector = ",".join(f"{label}={text}" for label, text in labels.items())
        leases = await self._kube.list(LEASES, self._namespace, label_selector=selector)
        return [lease for lease in leases if holder_mark(lease).key == reference.key]

    async def _take(self, owner: Owner, missing: Sequence[Claim], *, is_retained: bool) -> None:
        """Create the claims that the owner does not hold yet. The creation decides which owner gets a name.

        The first try creates all claims concurrently, because every new object waits for this. Two owners that need the
        same names may then each get a part of them. Both release their part and try again, name by name in the same
        order, so that the first name decides. An owner reads who holds a name only after it has released its own new
        names. Therefore several owners that compete are never all refused.
        """
        for at_once in (True, False):
            created, lost = await self._create(owner, missing, at_once=at_once, is_retained=is_retained)
            if not lost:
                return
            await all_of(self._giving_back.give_back(lease) for lease in created)
            refusals = [refusal for claim in lost if (refusal := await self._refusal(claim, owner)) is not None]
            if refusals:
                # Raise a refusal that no retry can cure before one that only needs time: it tells the person more.
                raise min(refusals, key=lambda refusal: not isinstance(refusal, OwnedElsewhere))
        names = ", ".join(f"{claim.kind} {claim.name!r}" for claim in lost)
        raise Conflict(f"cannot claim {names} for {owner.reference}: it changes hands")

    async def _create(
        self, owner: Owner, missing: Sequence[Claim], *, at_once: bool, is_retained: bool
    ) -> tuple[list[Json], list[Claim]]:
        """Return the created Leases, and the claims that others hold; unless `at_once`, stop at the first of these."""
        created: list[Json] = []
        lost: list[Claim] = []

        async def create(claim: Claim) -> None:
            body = build_lease(claim, owner, self._namespace, is_retained=is_retained)
            lease = await self._kube.create(LEASES, body, self._namespace)
            if lease is not None:
                created.append(lease)
                return
            # The owner may hold the claim already: a Lease that has lost its labels is in no list.
            lease = await self._read(claim)
            if lease is not None and estate_of(owner).holds(holder_mark(lease)):
                ensure_out_of_quarantine(claim, lease, owner)
                await self._settle(claim, lease, owner, is_retained=is_retained)
            else:
                lost.append(claim)

        if at_once:
            await all_of(create(claim) for claim in missing)
            return created, lost
        for claim in sorted(missing, key=lambda claim: claim.lease_name):
            if not lost:
                await create(claim)
        return created, lost

    async def _settle(self, claim: Claim, lease: Json, owner: Owner, *, is_retained: bool) -> None:
        """Set the labels and annotations of an owner's Lease as on a new one; keep those of other writers."""
        wanted, present = (
            build_lease(claim, owner, self._namespace, is_retained=is_retained)["metadata"],
            lease["metadata"],
        )
        former, noted = present.get("labels", {}), present.get("annotations", {})
        if QUARANTINE_LABEL in former:
            # The quarantine is over, so the unanswered call can no longer take effect.
            former = {name: text for name, text in former.items() if name != QUARANTINE_LABEL}
            over = (QUARANTINE_ANNOTATION, UNANSWERED_ANNOTATION)
            noted = {name: text for name, text in noted.items() if name not in over}
        noted = {name: text for name, text in noted.items() if name != GIVING_BACK_ANNOTATION}
        labels, annotations = former | wanted["labels"], noted | wanted["annotations"]
        if (labels, annotations) == (present.get("labels"), present.get("annotations")):
            return
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": present["uid"]},
            *tests_of_holder(estate_of(owner)),
            {"op": "add", "path": "/metadata/labels", "value": labels},
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
        ]
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def _release(self, estate: Estate, claim: Claim) -> datetime | None:
        lease = await self._read(claim)
        if lease is None or not estate.holds(holder_mark(lease)):
            return None
        end = end_of_late_call(lease)
        if end is None or end <= datetime.now(UTC):
            await self._giving_back.give_back(lease)
            return None
        await self._quarantine(claim, lease, end)
        return end

    async def _quarantine(self, claim: Claim, lease: Json, end: datetime) -> None:
        metadata = lease["metadata"]
        marks = {QUARANTINE_ANNOTATION: end.isoformat(timespec="seconds")}
        if marks.items() <= metadata["annotations"].items():
            return
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            # A call that was recorded meanwhile would need a longer quarantine.
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/metadata/labels", "value": metadata["labels"] | {QUARANTINE_LABEL: "true"}},
            {"op": "add", "path": "/metadata/annotations", "value": metadata["annotations"] | marks},
        ]
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def _refusal(self, claim: Claim, owner: Owner) -> OwnedElsewhere | StillDeleting | NameQuarantined | None:
        """Put the owner on a name's waiting list and return the refusal; None: the name may be free by now.

        Raises:
            Conflict: the claim keeps changing.
        """
        lease = await self.wait_for(claim, estate_of(owner))
        return None if lease is None else await self._words_of_refusal(claim, lease, owner)

    async def _words_of_refusal(
        self, claim: Claim, lease: Json, owner: Owner
    ) -> OwnedElsewhere | StillDeleting | NameQuarantined:
        mark = holder_mark(lease)
        if (end := quarantine_end(lease)) is not None:
            # At the end of the quarantine the owner's cleanup looks again, removes what a late call made, and releases
            # the name.
            return quarantined(claim, owner, end)
        error: OwnedElsewhere | StillDeleting
        if await self._giving_back.is_going(lease, parse_key(mark.key)):
            error = StillDeleting(
                f"cannot claim {claim.kind} {claim.name!r} for {owner.reference} yet:"
                f" {owner_named(mark.key)} is giving it back"
            )
        else:
            error = foreign(f"{claim.kind} {claim.name!r}", mark, owner)
        error.condition = claim.kind.condition
        return error
