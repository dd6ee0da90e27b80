"""The fleet as a list of references, and the reconcile requests that bring every object's run to look at it again."""

import asyncio
import logging
from collections.abc import Collection
from datetime import UTC, datetime

from temporalio import activity
from temporalio.client import Client

from activities.polling import is_preempted
from clients.claim_store import ClaimStore
from clients.kube import KubeClient
from clients.resources import custom_resource
from clients.temporal import request_reconcile
from plattr.backends import Backend
from plattr.errors import BackendRefused
from plattr.fleet import FleetBatch, FleetPage, FleetProgress, FleetQuery, Member
from plattr.objects import CustomObject, Kind
from plattr.steps import CHANGED_SIGNAL, REPAIR_SIGNAL, TASK_QUEUE
from telemetry.metrics import BACKEND_ERRORS

logger = logging.getLogger(__name__)

_SIGNALS = {"resync": REPAIR_SIGNAL, "restore": CHANGED_SIGNAL}


class FleetActivities:
    """List and request reconciles; what an object needs, its own run finds out."""

    def __init__(
        self, kube: KubeClient, claim_store: ClaimStore, temporal: Client, task_queue: str = TASK_QUEUE
    ) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._temporal = temporal
        self._task_queue = task_queue

    @activity.defn
    async def list_fleet(self, query: FleetQuery) -> FleetPage:
        """Return the objects after a key that are to be reconciled; paused ones are not.

        And those that are gone, with a name whose quarantine is over: their cleanup looks once more and gives it back.
        It waits for that moment itself; here only the names of runs that were lost are found.

        The whole fleet is listed for each page: the API server's own page tokens expire within minutes, and a
        period takes longer.
        """
        members, known = [], set[str]()
        for kind in Kind:
            # Page by page, and for a resync, which asks for all, of metadata alone: what tenants write in thousands of
            # specs must never be in memory together.
            async for page in self._kube.pages(custom_resource(kind), metadata_only=query.purpose == "resync"):
                for body in page.items:
                    custom_object = CustomObject.from_api(kind, body)
                    known.add(custom_object.reference.key)
                    if custom_object.reference.key > query.after and _is_wanted(custom_object, query):
                        members.append(Member(reference=custom_object.reference, is_deleting=custom_object.is_deleting))
        members += await self._to_look_after(known, query)
        members.sort(key=lambda member: member.reference.key)
        return FleetPage(members=tuple(members[: query.limit]), remaining=len(members))

    async def _to_look_after(self, known: Collection[str], query: FleetQuery) -> list[Member]:
        now = datetime.now(UTC)
        over = {reference for reference, end in await self._claim_store.quarantined() if end < now}
        return [
            Member(reference=reference, is_deleting=True)
            for reference in over
            if reference.key > query.after and reference.key not in known
        ]

    @activity.defn
    async def request_reconciles(self, batch: FleetBatch) -> FleetProgress:
        """Request a reconcile of the objects one after the other; ends early, saying where, when the worker stops.

        One that Temporal refuses does not keep the others from theirs.

        Raises:
            BackendUnavailable: Temporal did not take one; those before it are sent again, which harms nothing.
        """
        refused: list[Member] = []
        for number, member in enumerate(batch.members):
            if number and batch.pause:
                await asyncio.sleep(batch.pause.total_seconds())
                if is_preempted():
                    return FleetProgress(requested=number, refused=tuple(refused))
            try:
                await request_reconcile(
                    self._temporal,
                    member.reference,
                    is_deleting=member.is_deleting,
                    signal=_SIGNALS[batch.purpose],
                    task_queue=self._task_queue,
                )
            except BackendRefused as error:
                refused.append(member)
                BACKEND_ERRORS.labels(Backend.TEMPORAL, error.reason).inc()
                logger.warning("reconcile request refused", extra={"object": member.reference.key, "cause": str(error)})
        return FleetProgress(requested=len(batch.members), refused=tuple(refused))


def _is_wanted(custom_object: CustomObject, query: FleetQuery) -> bool:
    # A paused object is deleted all the same.
    if custom_object.is_paused and not custom_object.is_deleting:
        return False
    return query.purpose == "resync" or custom_object.kind is Kind.PREVIEW or not custom_object.is_settled
