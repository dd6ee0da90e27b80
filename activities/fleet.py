"""The fleet as a list of references, and the pokes that bring every object's run to look at it again."""

import asyncio
import logging
from collections.abc import Collection
from datetime import UTC, datetime

from temporalio import activity
from temporalio.client import Client

from activities.clients.backends import Backend
from activities.clients.kube import KubeClient
from activities.clients.ledger import Ledger
from activities.clients.metrics import BACKEND_ERRORS
from activities.clients.resources import custom_resource
from activities.clients.temporal import poke
from activities.polling import is_called_off
from plattr.errors import BackendRefused
from plattr.fleet import FleetBatch, FleetPage, FleetProgress, FleetQuery, Member
from plattr.objects import Envelope, Kind
from plattr.steps import CHANGED_SIGNAL, REPAIR_SIGNAL, TASK_QUEUE

logger = logging.getLogger(__name__)

_SIGNALS = {"resync": REPAIR_SIGNAL, "restore": CHANGED_SIGNAL}


class FleetActivities:
    """List and poke; what an object needs, its own run finds out."""

    def __init__(self, kube: KubeClient, ledger: Ledger, temporal: Client, task_queue: str = TASK_QUEUE) -> None:
        self._kube = kube
        self._ledger = ledger
        self._temporal = temporal
        self._task_queue = task_queue

    @activity.defn
    async def list_fleet(self, query: FleetQuery) -> FleetPage:
        """Return the objects after a key that are to be poked; paused ones are not.

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
                    envelope = Envelope.from_api(kind, body)
                    known.add(envelope.reference.key)
                    if envelope.reference.key > query.after and _is_wanted(envelope, query):
                        members.append(Member(reference=envelope.reference, is_deleting=envelope.is_deleting))
        members += await self._to_look_after(known, query)
        members.sort(key=lambda member: member.reference.key)
        return FleetPage(members=tuple(members[: query.limit]), remaining=len(members))

    async def _to_look_after(self, known: Collection[str], query: FleetQuery) -> list[Member]:
        now = datetime.now(UTC)
        over = {reference for reference, end in await self._ledger.quarantined() if end < now}
        return [
            Member(reference=reference, is_deleting=True)
            for reference in over
            if reference.key > query.after and reference.key not in known
        ]

    @activity.defn
    async def poke_fleet(self, batch: FleetBatch) -> FleetProgress:
        """Poke the objects one after the other; ends early, saying where, when the worker stops.

        One that Temporal refuses does not keep the others from their turn.

        Raises:
            BackendUnavailable: Temporal did not take a poke; those before it are poked again, which harms nothing.
        """
        refused: list[Member] = []
        for number, member in enumerate(batch.members):
            if number and batch.pause:
                await asyncio.sleep(batch.pause.total_seconds())
                if is_called_off():
                    return FleetProgress(poked=number, refused=tuple(refused))
            try:
                await poke(
                    self._temporal,
                    member.reference,
                    is_deleting=member.is_deleting,
                    signal=_SIGNALS[batch.purpose],
                    task_queue=self._task_queue,
                )
            except BackendRefused as error:
                refused.append(member)
                BACKEND_ERRORS.labels(Backend.TEMPORAL, error.reason).inc()
                logger.warning("poke refused", extra={"object": member.reference.key, "cause": str(error)})
        return FleetProgress(poked=len(batch.members), refused=tuple(refused))


def _is_wanted(envelope: Envelope, query: FleetQuery) -> bool:
    # A paused object is deleted all the same.
    if envelope.is_paused and not envelope.is_deleting:
        return False
    return query.purpose == "resync" or envelope.kind is Kind.PREVIEW or not envelope.is_settled
