"""The ledger: one Lease for each external name, in Plattr's own namespace; who created it owns the name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from activities.clients.concurrency import all_of
from activities.clients.kube import KubeClient
from activities.clients.resources import LEASES, Json
from plattr.claims import Claim, HeldClaim, Holding
from plattr.errors import BackendUnavailable, Conflict, OwnedElsewhere, PlattrError, StillDeleting
from plattr.objects import GROUP, ObjectReference, Owner
from plattr.target import OWNER_UID_ANNOTATION, owner_annotations, owner_labels

HOLDING_LABEL = f"{GROUP}/holding"
# The Lease's own name has hyphens where the claimed name may have underscores.
CLAIMED_NAME_ANNOTATION = f"{GROUP}/claimed-name"
# Kept here because a person may remove the object by force, and its spec is gone with it.
RETAINED_ANNOTATION = f"{GROUP}/retained"
# The resource itself may not tell: a bucket cannot be created with its tags, and of a realm that an account has
# lost its rights in Keycloak shows no attributes.
MADE_ANNOTATION = f"{GROUP}/made"
UNANSWERED_ANNOTATION = f"{GROUP}/unanswered-since"


class Ledger:
    """Claims, holds and releases names."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def acquire(self, owner: Owner, claims: Sequence[Claim], *, is_retained: bool = False) -> list[Claim]:
        """Make every name the owner's and return those that nobody held; writes only what is not so yet.

        A claim of the same owner under another uid is adopted: the object was created anew.

        Raises:
            OwnedElsewhere: another owner holds one of the names; then none has been claimed. Its `condition` tells
                which.
            Conflict: a claim changed under our hands.
        """
        # All reads come first, so that a refused object leaves no claim behind.
        leases = await all_of(self._read(claim) for claim in claims)
        found = dict(zip(claims, leases, strict=True))
        for claim, lease in found.items():
            if lease is not None:
                _ensure_ours(claim, lease, owner)
        await self._create_missing(owner, found, is_retained=is_retained)
        await all_of(
            self._settle(claim, lease, owner, is_retained=is_retained)
            for claim, lease in found.items()
            if lease is not None
        )
        return [claim for claim, lease in found.items() if lease is None]

    async def held_by(self, reference: ObjectReference, holding: Holding | None = None) -> list[HeldClaim]:
        """Return what an owner holds, under any of its uids; of one kind, or all."""
        labels = owner_labels(reference) | ({HOLDING_LABEL: holding} if holding else {})
        selector = ",".join(f"{label}={text}" for label, text in labels.items())
        leases = await self._kube.list(LEASES, self._namespace, label_selector=selector)
        held = [_held(lease, reference) for lease in leases if _holder(lease) == reference.key]
        return sorted(held, key=lambda one: one.claim.lease_name)

    async def note_made(self, reference: ObjectReference, claim: Claim) -> None:
        """Note that nothing bore the name and its owner makes what bears it now; the second time writes nothing.

        To be called before the creation where that cannot say whose the resource is, else after it. A claim that is
        missing, or somebody else's, stays as it is.

        Raises:
            Conflict: the claim changed under our hands.
        """
        lease = await self._read(claim)
        if lease is None or _holder(lease) != reference.key:
            return
        present = lease["metadata"].get("annotations", {})
        if MADE_ANNOTATION in present:
            return
        operations = _annotating(lease, reference, present | {MADE_ANNOTATION: "true"})
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    @asynccontextmanager
    async def call_noted(self, reference: ObjectReference, claim: Claim) -> AsyncIterator[None]:
        """Note on a claim that a call about its name is under way; the note goes when the call is answered.

        For a backend that does what it was asked long after the asker died or gave up: whoever has to be sure that
        nothing comes any more finds the note. An earlier one, of another call, stays.

        Raises:
            Conflict: the claim changed under our hands; then nothing was called.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        earlier = await self._note_unanswered(reference, claim, now)
        try:
            yield
        except (BackendUnavailable, StillDeleting):
            # Not answered, not by the backend itself, or not for good.
            raise
        except PlattrError:
            await self._note_unanswered(reference, claim, earlier)
            raise
        await self._note_unanswered(reference, claim, earlier)

    async def release(self, reference: ObjectReference, claims: Sequence[Claim]) -> None:
        """Give names back; one that is free already, or somebody else's, stays as it is.

        Raises:
            Conflict: a claim changed under our hands.
        """
        await all_of(self._release(reference, claim) for claim in claims)

    async def _note_unanswered(self, reference: ObjectReference, claim: Claim, since: str | None) -> str | None:
        """Replace the note and return what it was; a claim that is missing, or somebody else's, stays as it is."""
        lease = await self._read(claim)
        if lease is None or _holder(lease) != reference.key:
            return None
        annotations = dict(lease["metadata"].get("annotations", {}))
        earlier: str | None = annotations.pop(UNANSWERED_ANNOTATION, None)
        if since != earlier:
            wanted = annotations | ({UNANSWERED_ANNOTATION: since} if since else {})
            operations = _annotating(lease, reference, wanted)
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)
        return earlier

    async def _read(self, claim: Claim) -> Json | None:
        return await self._kube.get(LEASES, claim.lease_name, self._namespace)

    async def _create_missing(self, owner: Owner, found: dict[Claim, Json | None], *, is_retained: bool) -> None:
        """Create what nobody holds, one after the other, in the same order for every owner.

        Of two that need the same names at once, who gets the first gets them all. At once or in any other order
        each could get one that the other needs, and both would be refused for good.
        """
        missing = sorted((claim for claim, lease in found.items() if lease is None), key=lambda claim: claim.lease_name)
        created: list[Json] = []
        for claim in missing:
            lease = await self._kube.create(
                LEASES, _lease(claim, owner, self._namespace, is_retained=is_retained), self._namespace
            )
            if lease is not None:
                created.append(lease)
                continue
            # Somebody was faster; creating is what decides, so look who it was.
            lease = await self._read(claim)
            if lease is None:
                raise Conflict(f"cannot claim {claim.holding} {claim.name!r} for {owner.reference}: it changes hands")
            try:
                _ensure_ours(claim, lease, owner)
            except OwnedElsewhere:
                await all_of(self._delete(one) for one in created)
                raise
            found[claim] = lease

    async def _settle(self, claim: Claim, lease: Json, owner: Owner, *, is_retained: bool) -> None:
        present = lease["metadata"].get("annotations", {})
        wanted_annotations = present | _annotations(claim, owner, is_retained=is_retained)
        if present == wanted_annotations:
            return
        operations = _annotating(lease, owner.reference, wanted_annotations)
        await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)

    async def _release(self, reference: ObjectReference, claim: Claim) -> None:
        lease = await self._read(claim)
        if lease is not None and _holder(lease) == reference.key:
            await self._delete(lease)

    async def _delete(self, lease: Json) -> None:
        # The uid: a claim that was released and taken by another since must survive.
        metadata = lease["metadata"]
        await self._kube.delete(LEASES, metadata["name"], self._namespace, uid=metadata["uid"])


def _lease(claim: Claim, owner: Owner, namespace: str, *, is_retained: bool) -> Json:
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "name": claim.lease_name,
            "namespace": namespace,
            "labels": owner_labels(owner.reference) | {HOLDING_LABEL: str(claim.holding)},
            "annotations": _annotations(claim, owner, is_retained=is_retained),
        },
        "spec": {"holderIdentity": owner.reference.key},
    }


def _annotations(claim: Claim, owner: Owner, *, is_retained: bool) -> dict[str, str]:
    return owner_annotations(owner) | {
        CLAIMED_NAME_ANNOTATION: claim.name,
        RETAINED_ANNOTATION: str(is_retained).lower(),
    }


def _annotating(lease: Json, reference: ObjectReference, annotations: dict[str, str]) -> list[Json]:
    """Return the patch that replaces the annotations, if the claim is still this one."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": lease["metadata"]["uid"]},
        {"op": "test", "path": "/spec/holderIdentity", "value": reference.key},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
    ]


def _holder(lease: Json) -> str:
    return str(lease.get("spec", {}).get("holderIdentity", ""))


def _ensure_ours(claim: Claim, lease: Json, owner: Owner) -> None:
    holder = _holder(lease)
    if holder == owner.reference.key:
        return
    error = OwnedElsewhere(
        f"cannot claim {claim.holding} {claim.name!r} for {owner.reference}: it belongs to"
        f" {holder or 'nobody that Plattr knows'}; choose another name or remove it"
    )
    error.condition = claim.holding.condition
    raise error


def _held(lease: Json, reference: ObjectReference) -> HeldClaim:
    metadata = lease["metadata"]
    annotations = metadata["annotations"]
    return HeldClaim(
        claim=Claim(holding=Holding(metadata["labels"][HOLDING_LABEL]), name=annotations[CLAIMED_NAME_ANNOTATION]),
        owner=Owner(reference=reference, uid=annotations[OWNER_UID_ANNOTATION]),
        is_retained=annotations.get(RETAINED_ANNOTATION) == "true",
        is_made=annotations.get(MADE_ANNOTATION) == "true",
        unanswered_since=_moment(annotations.get(UNANSWERED_ANNOTATION)),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
