"""List the fleet as references, and send the reconcile requests that make every run check its object again."""

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
    """List objects and request reconciles; each object's run finds out what the object needs."""

    def __init__(
        self, kube: KubeClient, claim_store: ClaimStore, temporal: Client, task_queue: str = TASK_QUEUE
    ) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._temporal = temporal
        self._task_queue = task_queue

    @activity.defn
    async def list_fleet(self, query: FleetQuery) -> FleetPage:
        """Return the objects after a key that are to be reconciled, without paused objects.

        The result includes objects that are gone but have a name whose quarantine is over. Their cleanup looks again
        and releases the name. Usually the cleanup itself waits for that moment; this list finds the names of lost runs.

        Each page lists the whole fleet, because the API server's own page tokens expire within minutes, and a period
        takes longer.
        """
        members, known = [], set[str]()
        for kind in Kind:
            # Read page by page, and for a resync, which takes every object, only metadata: the specs that tenants
            # write in thousands of objects must never be in memory together.
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
        """Request a reconcile of each object in turn; when the worker stops, end early and return how far it came.

        A request that Temporal refuses does not prevent the others.

        Raises:
            BackendUnavailable: Temporal did not accept a request. Earlier requests are sent again, which is harmless.
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
    # A paused object can be deleted too.
    if custom_object.is_paused and not custom_object.is_deleting:
        return False
    return query.purpose == "resync" or custom_object.kind is Kind.PREVIEW or not custom_object.is_settled
