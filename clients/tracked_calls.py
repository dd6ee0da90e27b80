"""Track calls that a backend may carry out long after the calling worker has died or timed out."""

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
    """A call in flight; the caller records its result here."""

    is_made: bool = False
    """No resource had the name, and the call created the resource that has it now."""


class TrackedCalls:
    """Keeps an annotation on a claim while a call about its name is in flight."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    @asynccontextmanager
    async def track(self, estate: Estate, claim: Claim) -> AsyncIterator[TrackedCall]:
        """Annotate a claim while a call about its name is in flight; remove the annotation when the call is answered.

        Use it for a backend that may carry out a call long after the caller has died or timed out. The annotation shows
        that a call may still take effect. The annotation of an earlier call stays.

        Raises:
            Conflict: the claim changed since it was read; the call was not sent.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        earlier = await self._note_unanswered(estate, claim, now)
        call = TrackedCall()
        try:
            yield call
        except PlattrError as error:
            # After any other error the annotation stays: the call has no answer, or no final answer of the backend
            # itself.
            if isinstance(error, NothingPending) or not isinstance(error, BackendUnavailable | StillDeleting):
                await self._note_answered(estate, claim, earlier, call)
            raise
        await self._note_answered(estate, claim, earlier, call)

    async def _note_unanswered(self, estate: Estate, claim: Claim, since: str) -> str | None:
        """Write the annotation and return its earlier value; a missing or another owner's claim stays as it is."""
        note = annotation_path(UNANSWERED_ANNOTATION)
        write: Json = {"op": "add", "path": note, "value": since}
        with suppress(Conflict):
            # In a `test`, a missing annotation equals null.
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
            # The patch adds the annotation before it removes it, because removing a missing path fails the whole patch.
            operations.append({"op": "remove", "path": note})
        if call.is_made:
            operations.append({"op": "add", "path": annotation_path(MADE_ANNOTATION), "value": "true"})
        # A conflict means that another owner holds the claim by now.
        with suppress(Conflict):
            await self._kube.json_patch(LEASES, claim.lease_name, operations, self._namespace)
