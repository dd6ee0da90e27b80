"""The claim store: one Lease for each external name, in Plattr's own namespace; who created it owns the name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

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
from plattr.backends import NothingPending
from plattr.claims import Claim, ClaimKind, HeldClaim, goes_with_object
from plattr.errors import BackendUnavailable, Conflict, NameQuarantined, OwnedElsewhere, PlattrError, StillDeleting
from plattr.marks import Estate, Mark, estate_of, foreign
from plattr.objects import GROUP, ObjectReference, Owner, owner_named, parse_key
from plattr.target import (
    OWNER_ANNOTATION,
    OWNER_CLUSTER_ANNOTATION,
    OWNER_NAMESPACE_UID_ANNOTATION,
    OWNER_UID_ANNOTATION,
    annotated_mark,
    owner_annotations,
    owner_labels,
)

CLAIM_KIND_LABEL = f"{GROUP}/claim-kind"
# The Lease's own name has hyphens where the claimed name may have underscores.
CLAIMED_NAME_ANNOTATION = f"{GROUP}/claimed-name"
# Kept here because a person may remove the object by force, and its spec is gone with it.
RETAINED_ANNOTATION = f"{GROUP}/retained"
# The resource itself may not tell: a bucket cannot be created with its tags, and of a realm that an account has
# lost its rights in Keycloak shows no attributes.
MADE_ANNOTATION = f"{GROUP}/made"
# Here, where no tenant can write: whoever names a thousand Secrets on a Deployment must not have them read.
REFERENCES_ANNOTATION = f"{GROUP}/references"


@dataclass
class TrackedCall:
    """A call under way; its maker says what became of it."""

    is_made: bool = False
    """Nothing bore the name, and the call made what bears it now."""


class Acquisition(NamedTuple):
    """What an owner has after it asked for its claims."""

    new: list[Claim]
    """Those that it did not hold before."""
    held: list[HeldClaim]
    """Those that it held before, asked for or not."""


class ClaimStore:
    """Claims, holds and releases names."""

    def __init__(self, kube: KubeClient, namespace: str, wake: Wake = wake_nobody) -> None:
        """Keep the claims in `namespace`; `wake` tells an object's run that a name it waits for may be free."""
        self._kube = kube
        self._namespace = namespace
        self._giving_back = GivingBack(kube, namespace, wake)

    async def acquire(
        self, owner: Owner, claims: Sequence[Claim], *, optional: Sequence[Claim] = (), is_retained: bool = False
    ) -> Acquisition:
        """Make every name the owner's, and the optional ones that are free; writes only what is not so yet.

        A claim of the same owner under another uid is adopted: the object was created again.

        Raises:
            NameQuarantined: a call about one of the names, made for an object that is gone, may still come true.
            OwnedElsewhere: another owner holds one of the names; then none is newly claimed. Its `condition` tells
                which. The object is woken when the name is given back.
            StillDeleting: the same, by one who is being deleted, or gives the name back just now.
            Conflict: a claim changed under our hands.
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
                body = _lease(claim, owner, self._namespace, is_retained=is_retained)
                if await self._kube.create(LEASES, body, self._namespace) is not None:
                    missing.append(claim)
        await all_of(
            self._settle(claim, leases[claim.lease_name], owner, is_retained=is_retained)
            for claim in (*claims, *optional)
            if claim.lease_name in leases
        )
        held = [_held(lease, owner.reference) for lease in leases.values()]
        return Acquisition(new=missing, held=[each for each in held if each.quarantined_until is None])

    async def held_by(self, estate: Estate, kind: ClaimKind | None = None) -> list[HeldClaim]:
        """Return what an owner holds, under any of its uids; of one kind, or all."""
        held = [_held(lease, estate.reference) for lease in await self._leases_of(estate, kind)]
        return sorted(held, key=lambda one: one.claim.lease_name)

    async def held_under(self, reference: ObjectReference) -> list[HeldClaim]:
        """Return what objects of this name hold, of whichever cluster and namespace: for people to read."""
        held = [_held(lease, reference) for lease in await self._leases_under(reference)]
        return sorted(held, key=lambda one: one.claim.lease_name)

    async def holders(self) -> frozenset[ObjectReference]:
        """Return who holds any name that goes with its object."""
        found = set()
        async for page in self._kube.pages(
            LEASES, self._namespace, label_selector=CLAIM_KIND_LABEL, metadata_only=True
        ):
            for lease in page.items:
                holder = parse_key(lease["metadata"].get("annotations", {}).get(OWNER_ANNOTATION, ""))
                if holder is not None and goes_with_object(_held(lease, holder)):
                    found.add(holder)
        return frozenset(found)

    async def holder_of(self, claim: Claim) -> ObjectReference | None:
        """Return whose a name is; None when it is free."""
        lease = await self._read(claim)
        return None if lease is None else parse_key(_mark(lease).key)

    async def wait_for(self, claim: Claim, estate: Estate) -> Json | None:
        """Have an object woken when another gives a name back; return the other's Lease, None: there is none any more.

        Raises:
            Conflict: the claim changes all the time.
        """
        for _ in range(TRIES):
            lease = await self._read(claim)
            if lease is None or estate.holds(_mark(lease)):
                return None
            # Nobody gives back what has no holder.
            if not _mark(lease).key or await self._giving_back.wait(lease, estate.reference):
                return lease
        raise Conflict(f"cannot claim {claim.kind} {claim.name!r} for {estate.reference}: it changes all the time")

    async def stop_waiting(self, reference: ObjectReference) -> None:
        """Have an object woken for no name any more; the second time writes nothing.

        Raises:
            Conflict: a claim changes all the time.
        """
        await self._giving_back.stop_waiting(reference)

    async def marked(self, claim: Claim) -> tuple[Json, Mark] | None:
        """Return the Lease of a name and whose it is; None when the name is free."""
        lease = await self._read(claim)
        return None if lease is None else (lease, _mark(lease))

    async def take_over(self, claim: Claim, lease: Json, owner: Owner, *, is_retained: bool) -> None:
        """Make another's claim the owner's, as a person asked for.

        Raises:
            Conflict: it has changed since it was read.
        """
        wanted, present = _lease(claim, owner, self._namespace, is_retained=is_retained), lease["metadata"]
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
        """Note that nothing bore the name and its owner makes what bears it now; the second time writes nothing.

        To be called before the creation where that cannot say whose the resource is, else after it. A claim that is
        missing, or somebody else's, stays as it is.
        """
        operations = [*_held_by(estate), {"op": "add", "path": annotation_path(MADE_ANNOTATION), "value": "true"}]
        # A conflict: it is somebody else's. A patch that changes nothing is none: the API server keeps the version.
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def note_references(self, estate: Estate, claim: Claim, record: str) -> None:
        """Note what of the user's a run has looked at; a claim that is missing, or somebody else's, stays as it is."""
        write: Json = {"op": "add", "path": annotation_path(REFERENCES_ANNOTATION), "value": record}
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, [*_held_by(estate), write], self._namespace)

    async def noted_references(self) -> AsyncIterator[HeldClaim]:
        """Yield the workloads' names with what of the user's the last run of each looked at."""
        selector = f"{CLAIM_KIND_LABEL}={ClaimKind.INGRESS}"
        async for page in self._kube.pages(LEASES, self._namespace, label_selector=selector, metadata_only=True):
            for lease in page.items:
                annotations = lease["metadata"].get("annotations", {})
                holder = parse_key(annotations.get(OWNER_ANNOTATION, ""))
                if holder is not None and annotations.get(REFERENCES_ANNOTATION):
                    yield _held(lease, holder)

    @asynccontextmanager
    async def track_call(self, estate: Estate, claim: Claim) -> AsyncIterator[TrackedCall]:
        """Note on a claim that a call about its name is under way; the note goes when the call is answered.

        For a backend that does what it was asked long after the asker died or gave up: whoever has to be sure that
        nothing comes any more finds the note. An earlier one, of another call, stays.

        Raises:
            Conflict: the claim changed under our hands; then nothing was called.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        earlier = await self._note_unanswered(estate, claim, now)
        call = TrackedCall()
        try:
            yield call
        except PlattrError as error:
            # The others: not answered, not by the backend itself, or not for good.
            if isinstance(error, NothingPending) or not isinstance(error, BackendUnavailable | StillDeleting):
                await self._note_answered(estate, claim, earlier, call)
            raise
        await self._note_answered(estate, claim, earlier, call)

    async def quarantined(self) -> list[tuple[ObjectReference, datetime]]:
        """Return whose each name in quarantine was, and until when it is in quarantine."""
        leases = await self._kube.list(LEASES, self._namespace, label_selector=QUARANTINE_LABEL)
        ends = [(parse_key(_mark(lease).key), quarantine_end(lease)) for lease in leases]
        return [(reference, end) for reference, end in ends if reference is not None and end is not None]

    async def release(self, estate: Estate, claims: Sequence[Claim]) -> datetime | None:
        """Give names back and wake who waits for them; one that is free already, or somebody else's, stays as it is.

        One about which a call was never answered goes into quarantine instead: what comes true late must not meet
        the next owner's. Returns when the last of them can be given back, by releasing it once more.

        Raises:
            Conflict: a claim changed under our hands.
        """
        ends = await all_of(self._release(estate, claim) for claim in claims)
        return max((end for end in ends if end is not None), default=None)

    async def _note_unanswered(self, estate: Estate, claim: Claim, since: str) -> str | None:
        """Write the note and return the one before; a claim that is missing, or somebody else's, stays as it is."""
        note = annotation_path(UNANSWERED_ANNOTATION)
        write: Json = {"op": "add", "path": note, "value": since}
        with suppress(Conflict):
            # A note that is not there equals null.
            operations = [*_held_by(estate), {"op": "test", "path": note, "value": None}, write]
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)
            return None
        lease = await self._read(claim)
        if lease is None or not estate.holds(_mark(lease)):
            return None
        await self._kube.json_patch(LEASES, claim.lease_name, [*_held_by(estate), write], self._namespace)
        earlier: str | None = lease["metadata"].get("annotations", {}).get(UNANSWERED_ANNOTATION)
        return earlier

    async def _note_answered(self, estate: Estate, claim: Claim, earlier: str | None, call: TrackedCall) -> None:
        note = annotation_path(UNANSWERED_ANNOTATION)
        operations = [*_held_by(estate), {"op": "add", "path": note, "value": earlier or ""}]
        if earlier is None:
            # Added before it is removed: to remove what is not there would fail the whole patch.
            operations.append({"op": "remove", "path": note})
        if call.is_made:
            operations.append({"op": "add", "path": annotation_path(MADE_ANNOTATION), "value": "true"})
        # A conflict: the claim is somebody else's by now.
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def _read(self, claim: Claim) -> Json | None:
        return await self._kube.get(LEASES, claim.lease_name, self._namespace)

    async def _leases_of(self, estate: Estate, kind: ClaimKind | None = None) -> list[Json]:
        leases = await self._leases_under(estate.reference, kind)
        return [lease for lease in leases if estate.holds(_mark(lease))]

    async def _leases_under(self, reference: ObjectReference, kind: ClaimKind | None = None) -> list[Json]:
        labels = owner_labels(reference) | ({CLAIM_KIND_LABEL: kind} if kind else {})
        selector = ",".join(f"{label}={text}" for label, text in labels.items())
        leases = await self._kube.list(LEASES, self._namespace, label_selector=selector)
        return [lease for lease in leases if _mark(lease).key == reference.key]

    async def _take(self, owner: Owner, missing: Sequence[Claim], *, is_retained: bool) -> None:
        """Create what the owner does not hold yet; creating is what decides who gets a name.

        At once first, for every new object waits for it. Of two that need the same names each may get one that the
        other needs: both give theirs back, and try one after the other in the same order, where the first decides.
        Who holds a name is looked at only when nothing new is held oneself: so of several that met, never all are
        refused.
        """
        for at_once in (True, False):
            created, lost = await self._create(owner, missing, at_once=at_once, is_retained=is_retained)
            if not lost:
                return
            await all_of(self._giving_back.give_back(lease) for lease in created)
            refusals = [refusal for claim in lost if (refusal := await self._refusal(claim, owner)) is not None]
            if refusals:
                # What no retry mends says more than what only takes its time.
                raise min(refusals, key=lambda refusal: not isinstance(refusal, OwnedElsewhere))
        names = ", ".join(f"{claim.kind} {claim.name!r}" for claim in lost)
        raise Conflict(f"cannot claim {names} for {owner.reference}: it changes hands")

    async def _create(
        self, owner: Owner, missing: Sequence[Claim], *, at_once: bool, is_retained: bool
    ) -> tuple[list[Json], list[Claim]]:
        """Return the Leases that were created, and the claims that others have; in order, the first such ends it."""
        created: list[Json] = []
        lost: list[Claim] = []

        async def create(claim: Claim) -> None:
            body = _lease(claim, owner, self._namespace, is_retained=is_retained)
            lease = await self._kube.create(LEASES, body, self._namespace)
            if lease is not None:
                created.append(lease)
                return
            # One of the owner's own that has lost its labels is in no list.
            lease = await self._read(claim)
            if lease is not None and estate_of(owner).holds(_mark(lease)):
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
        """Bring labels and annotations of an owner's own Lease to what a new one would have; others' stay."""
        wanted, present = _lease(claim, owner, self._namespace, is_retained=is_retained)["metadata"], lease["metadata"]
        former, noted = present.get("labels", {}), present.get("annotations", {})
        if QUARANTINE_LABEL in former:
            # It is over, and with it the call that it was for.
            former = {name: text for name, text in former.items() if name != QUARANTINE_LABEL}
            over = (QUARANTINE_ANNOTATION, UNANSWERED_ANNOTATION)
            noted = {name: text for name, text in noted.items() if name not in over}
        noted = {name: text for name, text in noted.items() if name != GIVING_BACK_ANNOTATION}
        labels, annotations = former | wanted["labels"], noted | wanted["annotations"]
        if (labels, annotations) == (present.get("labels"), present.get("annotations")):
            return
        operations = [
            {"op": "test", "path": "/metadata/uid", "value": present["uid"]},
            *_held_by(estate_of(owner)),
            {"op": "add", "path": "/metadata/labels", "value": labels},
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
        ]
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def _release(self, estate: Estate, claim: Claim) -> datetime | None:
        lease = await self._read(claim)
        if lease is None or not estate.holds(_mark(lease)):
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
            # The note, too: a call that was made since would last longer.
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
            {"op": "add", "path": "/metadata/labels", "value": metadata["labels"] | {QUARANTINE_LABEL: "true"}},
            {"op": "add", "path": "/metadata/annotations", "value": metadata["annotations"] | marks},
        ]
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def _refusal(self, claim: Claim, owner: Owner) -> OwnedElsewhere | StillDeleting | NameQuarantined | None:
        """Return why the owner cannot have a name, having noted that it waits for it; None: it may have it by now.

        Raises:
            Conflict: the claim changes all the time.
        """
        lease = await self.wait_for(claim, estate_of(owner))
        return None if lease is None else await self._words_of_refusal(claim, lease, owner)

    async def _words_of_refusal(
        self, claim: Claim, lease: Json, owner: Owner
    ) -> OwnedElsewhere | StillDeleting | NameQuarantined:
        mark = _mark(lease)
        if (end := quarantine_end(lease)) is not None:
            # Its owner's cleanup looks once more at the end, removes what came, and gives the name back.
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


def _lease(claim: Claim, owner: Owner, namespace: str, *, is_retained: bool) -> Json:
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": claim.lease_name,
            "namespace": namespace,
            "labels": owner_labels(owner.reference) | {CLAIM_KIND_LABEL: str(claim.kind)},
            "annotations": owner_annotations(owner)
            | {CLAIMED_NAME_ANNOTATION: claim.name, RETAINED_ANNOTATION: str(is_retained).lower()},
        },
        "spec": {"holderIdentity": owner.reference.key},
    }


def _held_by(estate: Estate) -> list[Json]:
    """Return the operations that fail a patch of a claim that is not the owner's."""
    parts = [
        ("/spec/holderIdentity", estate.reference.key),
        (annotation_path(OWNER_CLUSTER_ANNOTATION), estate.cluster),
        (annotation_path(OWNER_NAMESPACE_UID_ANNOTATION), estate.namespace_uid),
    ]
    return [{"op": "test", "path": path, "value": value} for path, value in parts if value is not None]


def _mark(lease: Json) -> Mark:
    """Return whose a claim is: creating decided the holder, so it counts before what an annotation says."""
    key = str(lease.get("spec", {}).get("holderIdentity", ""))
    annotated = annotated_mark({OWNER_ANNOTATION: key, **lease["metadata"].get("annotations", {})})
    return annotated.model_copy(update={"key": key}) if annotated else Mark(key=key)


def _held(lease: Json, reference: ObjectReference) -> HeldClaim:
    metadata = lease["metadata"]
    annotations = metadata["annotations"]
    return HeldClaim(
        claim=Claim(kind=ClaimKind(metadata["labels"][CLAIM_KIND_LABEL]), name=annotations[CLAIMED_NAME_ANNOTATION]),
        owner=Owner(
            reference=reference,
            uid=annotations[OWNER_UID_ANNOTATION],
            cluster=annotations.get(OWNER_CLUSTER_ANNOTATION, ""),
            namespace_uid=annotations.get(OWNER_NAMESPACE_UID_ANNOTATION, ""),
        ),
        is_retained=annotations.get(RETAINED_ANNOTATION) == "true",
        is_made=annotations.get(MADE_ANNOTATION) == "true",
        unanswered_until=end_of_late_call(lease),
        references=annotations.get(REFERENCES_ANNOTATION, ""),
        quarantined_until=quarantine_end(lease),
    )
