"""The assembled watcher: reflectors feed the tracker, its reconcile requests go to Temporal, probes are answered."""

import asyncio
import time
from functools import partial
from typing import Any

from temporalio.client import Client

from clients import temporal
from clients.kube import KubeClient
from clients.resources import APPLICATIONS, DEPLOYMENTS, PREVIEWS
from clients.temporal_probe import TemporalProbe
from plattr.objects import Kind
from plattr.steps import TASK_QUEUE
from plattr.target import MANAGED_BY_LABEL
from watcher.leadership import Leadership, LeadershipLost
from watcher.metrics import WatcherMetrics
from watcher.object_tracker import ObjectTracker
from watcher.reconcile_queue import ReconcileQueue, ReconcileRequest
from watcher.reflector import Listed, Reflector
from watcher.snapshots import ObjectSnapshot, observe_deployment, take_snapshot
from watcher.time_to_running import TimeToRunning

# The API server sends a bookmark each minute. Two minutes without any message mean a fault.
SILENCE_SECONDS = 120.0
# 10 s: a pod has 30 s to end, and the next leader requests everything from its list that was not flushed.
DRAIN_SECONDS = 10.0


class WatcherService:
    """Everything that runs while this replica watches. A failure of any part ends all of it."""

    def __init__(
        self,
        kube: KubeClient,
        client: Client,
        metrics: WatcherMetrics,
        *,
        leadership: Leadership | None = None,
        task_queue: str = TASK_QUEUE,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._leadership = leadership
        self._task_queue = task_queue
        self.queue = ReconcileQueue(self._send, metrics)
        self.tracker = ObjectTracker(self.queue.put, TimeToRunning(metrics))
        # Reflectors of Plattr's own kinds, and of the Deployments that Plattr made.
        self._objects = {
            Kind.APPLICATION: Reflector(kube, APPLICATIONS, partial(take_snapshot, Kind.APPLICATION), metrics),
            Kind.PREVIEW: Reflector(kube, PREVIEWS, partial(take_snapshot, Kind.PREVIEW), metrics),
        }
        self._deployments = Reflector(
            kube, DEPLOYMENTS, observe_deployment, metrics, label_selector=f"{MANAGED_BY_LABEL}=plattr"
        )
        self._probe = TemporalProbe(client)

    @property
    def streams(self) -> tuple[Reflector[Any], ...]:
        """Return every reflector, for the probes."""
        return (*self._objects.values(), self._deployments)

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            LeadershipLost: another replica watches now.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._probe.run())
                if self._leadership is not None:
                    await self._leadership.acquire()
                    tasks.create_task(self._leadership.keep())
                self._metrics.is_leader.set(1)
                tasks.create_task(self.queue.run())
                for kind, stream in self._objects.items():
                    tasks.create_task(self._follow(kind, stream))
                tasks.create_task(self._follow_deployments())
                tasks.create_task(self._confirm())
        except BaseExceptionGroup as group:
            # The group's other exceptions are only cancellations that follow from the first one.
            if (lost := group.subgroup(LeadershipLost)) is not None:
                raise lost.exceptions[0] from None
            raise
        finally:
            self._metrics.is_leader.set(0)

    def live(self) -> str | None:
        """Return why the process should be restarted; None while its loops run."""
        now = time.monotonic()
        if self._is_standby and self._leadership is not None:
            return _since("the election", self._leadership.alive_at, now)
        for stream in self.streams:
            if reason := _since(f"the watch of {stream.name}", stream.alive_at, now):
                return reason
        return None

    def ready(self) -> str | None:
        """Return why the watcher cannot do its work; None if it can. A standby is ready to take over."""
        now = time.monotonic()
        if reason := self._probe.silence():
            return reason
        if self._is_standby:
            return None
        for stream in self.streams:
            if not stream.is_synced or stream.heard_at is None:
                return f"{stream.name} have not been listed yet"
            if now - stream.heard_at > SILENCE_SECONDS:
                return f"the api server has said nothing of {stream.name} for {now - stream.heard_at:.0f} s"
        return None

    @property
    def _is_standby(self) -> bool:
        return self._leadership is not None and not self._leadership.is_leader

    async def _send(self, request: ReconcileRequest) -> None:
        await temporal.request_reconcile(
            self._client,
            request.reference,
            is_deleting=request.is_deleting,
            signal=request.signal,
            task_queue=self._task_queue,
        )
        self._probe.heard()

    async def _follow(self, kind: Kind, stream: Reflector[ObjectSnapshot]) -> None:
        async for change in stream.changes():
            if isinstance(change, Listed):
                self.tracker.replace(kind, change.seen)
            else:
                self.tracker.change(change.type, change.seen)

    async def _follow_deployments(self) -> None:
        async for change in self._deployments.changes():
            if isinstance(change, Listed):
                self.tracker.deployments.replace(change.seen)
            else:
                self.tracker.deployments.change(change.type, change.seen)

    async def _confirm(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.tracker.deployments.confirm()


def _since(what: str, alive_at: float, now: float) -> str | None:
    silence = now - alive_at
    return f"{what} has stood still for {silence:.0f} s" if silence > SILENCE_SECONDS else None
