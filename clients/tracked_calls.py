"""Calls that a backend may carry out long after the worker that made them died or gave up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from clients.claim_lease import MADE_ANNOTATION, holder_mark, tests_of_holder
from clients.claim_release import annotation_path
from clients.kube import KubeClient
from clients.quarantine import UNANSWERED_ANNOTATION
from clients.resources import LEASES, Json
from plattr.backends import NothingPending
from plattr.claims import Claim
from plattr.errors import BackendUnavailable, Conflict, PlattrError, StillDeleting
from plattr.marks import Estate


@dataclass
class TrackedCall:
    """A call under way; its maker says what became of it."""

    is_made: bool = False
    """Nothing bore the name, and the call made what bears it now."""


class TrackedCalls:
    """Keeps a note on a claim while a call about its name is under way."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    @asynccontextmanager
    async def track(self, estate: Estate, claim: Claim) -> AsyncIterator[TrackedCall]:
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

    async def _note_unanswered(self, estate: Estate, claim: Claim, since: str) -> str | None:
        """Write the note and return the one before; a claim that is missing, or somebody else's, stays as it is."""
        note = annotation_path(UNANSWERED_ANNOTATION)
        write: Json = {"op": "add", "path": note, "value": since}
        with suppress(Conflict):
            # A note that is not there equals null.
            operations = [*tests_of_holder(estate), {"op": "test", "path": note, "value": None}, write]
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)
            return None
        lease = await self._kube.get(LEASES, claim.lease_name, self._namespace)
        if lease is None or not estate.holds(holder_mark(lease)):
            return None
        await self._kube.json_patch(LEASES, claim.lease_name, [*tests_of_holder(estate), write], self._namespace)
        earlier: str | None = lease["metadata"].get("annotations", {}).get(UNANSWERED_ANNOTATION)
        return earlier

    async def _note_answered(self, estate: Estate, claim: Claim, earlier: str | None, call: TrackedCall) -> None:
        note = annotation_path(UNANSWERED_ANNOTATION)
        operations = [*tests_of_holder(estate), {"op": "add", "path": note, "value": earlier or ""}]
        if earlier is None:
            # Added before it is removed: to remove what is not there would fail the whole patch.
            operations.append({"op": "remove", "path": note})
        if call.is_made:
            operations.append({"op": "add", "path": annotation_path(MADE_ANNOTATION), "value": "true"})
        # A conflict: the claim is somebody else's by now.
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)
