"""A day of churn leaves nothing behind in the watcher: every object comes under a name of its own, lives and goes."""

import asyncio
import gc
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from clients.resources import Json
from plattr.objects import Kind, ObjectReference
from tests.watcher.bodies import BodyFleet, custom_object, deployment, orphan
from watcher.deployment_tracker import DOUBT_SECONDS
from watcher.metrics import WatcherMetrics
from watcher.reconcile_queue import ReconcileQueue, ReconcileRequest
from watcher.snapshots import ObjectRevision, ObjectSnapshot
from watcher.time_to_running import TimeToRunning

EVENTS = 100_000
# What the watcher keeps an object by.
REMEMBERED = (ObjectReference, ObjectSnapshot, ObjectRevision, ReconcileRequest)
PADDING = {"environment": "production", "envVars": [{"name": "X", "value": "x" * 2000}]}


class Watcher:
    """All of the watcher that remembers objects, without its streams; the reconcile requests go nowhere."""

    def __init__(self, metrics: WatcherMetrics) -> None:
        self.now = 100.0
        self.events = 0
        self.sent = 0
        self.lives = 0
        self.queue = ReconcileQueue(self._send, metrics)
        self.tracker = BodyFleet(self.queue.put, TimeToRunning(metrics, clock=lambda: self.now), clock=lambda: self.now)

    async def _send(self, request: ReconcileRequest) -> None:
        self.sent += 1

    def see(self, kind: Kind, event: str, body: Json) -> None:
        body["spec"] = PADDING | body["spec"]
        self.tracker.change(kind, event, body)
        self.events += 1

    def see_deployment(self, event: str, body: Json) -> None:
        self.tracker.change_deployment(event, body)
        self.events += 1

    def live(self) -> None:
        """An Application and its preview come, run, fail, are paused and go, their Deployments before them or after."""
        self.lives += 1
        parent, name = f"app-{self.lives}", f"app-{self.lives}-pr-1"
        app, preview = ((Kind.APPLICATION, parent), (Kind.PREVIEW, name))
        uid: dict[str, Any] = {"uid": f"uid-{self.lives}"}
        self.see(Kind.PREVIEW, "ADDED", custom_object(name, **uid))
        self.see(Kind.PREVIEW, "MODIFIED", orphan(name, parent, **uid))
        self.see(Kind.APPLICATION, "ADDED", custom_object(parent, **uid))
        for kind, each in (app, preview):
            self.see_deployment("ADDED", deployment(each, available=False, kind=kind))
            self.see(kind, "MODIFIED", custom_object(each, phase="Provisioning", **uid))
            self.see_deployment("MODIFIED", deployment(each, available=True, kind=kind))
            self.see(kind, "MODIFIED", custom_object(each, phase="Running", **uid))
            self.see_deployment("MODIFIED", deployment(each, available=False, kind=kind))
        self.now += DOUBT_SECONDS
        self.tracker.confirm()
        for kind, each in (app, preview):
            self.see(
                kind, "MODIFIED", custom_object(each, generation=2, observed=1, paused=True, phase="Failed", **uid)
            )
            gone = deployment(each, available=False, kind=kind)
            steps = [partial(self._go, kind, each, uid), partial(self.see_deployment, "DELETED", gone)]
            for step in steps[:: 1 if self.lives % 2 else -1]:
                step()
        self.tracker.confirm()

    def _go(self, kind: Kind, name: str, uid: dict[str, Any]) -> None:
        for event, held in (("MODIFIED", True), ("DELETED", False)):
            self.see(kind, event, custom_object(name, generation=3, deleting=True, finalizer=held, **uid))

    async def churn(self, events: int) -> None:
        until = self.events + events
        while self.events < until:
            for _ in range(100):
                self.live()
            assert await self.queue.drain(30)


def remembered() -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, REMEMBERED))


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_memory_does_not_grow_with_the_objects_that_come_and_go(metrics: WatcherMetrics) -> None:
    before_all = remembered()
    watcher = Watcher(metrics)
    sending = asyncio.create_task(watcher.queue.run())
    try:
        # Once warm, the allocator has what it needs.
        await watcher.churn(EVENTS // 10)
        before = resident()
        await watcher.churn(EVENTS)
        grown = resident() - before
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    assert watcher.sent > watcher.lives
    assert len(watcher.tracker) == watcher.queue.depth == 0
    assert remembered() - before_all == Counter()
    assert grown < 2_000_000
