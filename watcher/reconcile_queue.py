"""Send reconcile requests to Temporal: at most one per object, the newest wins, and an outage loses none."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from plattr.errors import BackendRefused, Transient
from plattr.objects import ObjectReference
from plattr.steps import CHANGED_SIGNAL, REPAIR_SIGNAL, RESYNC_SIGNAL
from watcher.backoff import pause_seconds
from watcher.bursts import Bursts
from watcher.fair_queue import FairQueue
from watcher.metrics import WatcherMetrics

logger = logging.getLogger(__name__)

# Each signal asks for everything that the signals before it ask for, and more.
_WEAKEST_FIRST = (CHANGED_SIGNAL, REPAIR_SIGNAL, RESYNC_SIGNAL)

# 20 at once: a dev server accepts about a hundred a second. More would only queue there.
CONCURRENCY = 20


@dataclass(frozen=True, slots=True)
class ReconcileRequest:
    """One object to reconcile. `since` is when the oldest change that this request covers was seen."""

    reference: ObjectReference
    is_deleting: bool
    signal: str
    since: float = 0.0
    refusals: int = 0
    preempts: bool = False
    """The object had not settled since its last change, so this request preempts a run."""


Send = Callable[[ReconcileRequest], Awaitable[None]]


class ReconcileQueue:
    """A queue with one entry per object, so it never holds more entries than there are objects."""

    def __init__(self, send: Send, metrics: WatcherMetrics, *, concurrency: int = CONCURRENCY) -> None:
        self._send = send
        self._metrics = metrics
        self._concurrency = concurrency
        self._pending: dict[ObjectReference, ReconcileRequest] = {}
        self._ready = FairQueue()
        # Objects that are queued, being sent, or pausing after a refusal. Each returns to the queue without a new
        # request.
        self._held: set[ObjectReference] = set()
        # The held objects that change too fast, until their pause ends.
        self._delayed: dict[ObjectReference, asyncio.TimerHandle] = {}
        self._bursts = Bursts()
        self._failures = 0
        self._resume_at = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """Return how many objects wait for a reconcile request to be sent."""
        return len(self._held)

    def put(self, request: ReconcileRequest) -> None:
        """Queue a reconcile request, merged with the one that already waits for the same object."""
        self._merge(replace(request, since=request.since or time.monotonic()))
        if request.reference in self._delayed and request.is_deleting:
            # A deletion does not wait: an object has only one in its life.
            self._admit(request.reference)
        elif request.reference not in self._held:
            self._held.add(request.reference)
            self._line_up(request.reference)
        self._idle.clear()
        self._show_depth()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as senders:
            for _ in range(self._concurrency):
                senders.create_task(self._send_forever())

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until no request is outstanding; False if that took too long."""
        for reference in list(self._delayed):
            self._admit(reference)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _send_forever(self) -> None:
        while True:
            reference = await self._ready.get()
            await self._outlast_pause()
            request = self._pending.pop(reference)
            refusal_pause = 0.0
            try:
                await self._send(request)
            except Transient as error:
                self._keep(request)
                self._back_off(error)
            except BackendRefused as error:
                # A refusal may concern one object, which must not delay others. A missing search attribute concerns all
                # of them.
                self._keep(replace(request, refusals=request.refusals + 1))
                refusal_pause = pause_seconds(request.refusals + 1)
                self._metrics.request_errors.labels(request.reference.kind, error.reason).inc()
                logger.warning(
                    "reconcile request refused", extra={"object": request.reference.key, "cause": str(error)}
                )
            except asyncio.CancelledError:
                self._keep(request)
                raise
            else:
                self._succeeded(request)
            self._let_go(reference, refusal_pause)

    async def _outlast_pause(self) -> None:
        while True:
            # Read the time again after each sleep: another sender may have failed or succeeded meanwhile.
            remaining = self._resume_at - time.monotonic()
            if remaining <= 0:
                return
            await asyncio.sleep(remaining)

    def _succeeded(self, request: ReconcileRequest) -> None:
        if self._failures:
            logger.info("temporal answers again", extra={"failures": self._failures, "waiting": self.depth})
        self._failures = 0
        self._resume_at = 0.0
        self._bursts.sent(request.reference, preempts=request.preempts and not request.is_deleting)
        self._metrics.requests.labels(request.reference.kind, request.signal).inc()
        self._metrics.lag.observe(time.monotonic() - request.since)
        logger.info(
            "reconcile requested",
            extra={"object": request.reference.key, "signal": request.signal, "deleting": request.is_deleting},
        )

    def _back_off(self, error: Transient) -> None:
        self._metrics.request_errors.labels("", error.reason).inc()
        # Senders that were busy at the same time fail together. That counts as one failure, with one pause for all.
        if time.monotonic() < self._resume_at:
            return
        self._failures += 1
        self._resume_at = time.monotonic() + pause_seconds(self._failures)
        logger.warning("cannot request a reconcile, trying again", extra={"cause": str(error), "waiting": self.depth})

    def _keep(self, request: ReconcileRequest) -> None:
        newer = self._pending.get(request.reference)
        self._pending[request.reference] = request
        if newer is not None:
            self._merge(newer)

    def _merge(self, request: ReconcileRequest) -> None:
        waiting = self._pending.get(request.reference)
        if waiting is not None:
            # The newer request knows whether the object is being deleted.
            signal = max(waiting.signal, request.signal, key=_WEAKEST_FIRST.index)
            since = min(waiting.since, request.since)
            request = replace(
                request,
                signal=signal,
                since=since,
                refusals=max(waiting.refusals, request.refusals),
                preempts=waiting.preempts or request.preempts,
            )
        self._pending[request.reference] = request

    def _let_go(self, reference: ObjectReference, pause: float) -> None:
        if reference in self._pending:
            # The object stays held, so a newer reconcile request waits for the same pause.
            asyncio.get_running_loop().call_later(pause, self._line_up, reference)
        else:
            self._held.discard(reference)
        if not self._held:
            self._idle.set()
        self._show_depth()

    def _line_up(self, reference: ObjectReference) -> None:
        """Queue an object for a sender, after a pause if it changes faster than its runs end."""
        wait = 0.0 if self._pending[reference].is_deleting else self._bursts.wait_seconds(reference)
        if wait > 0:
            self._delayed[reference] = asyncio.get_running_loop().call_later(wait, self._admit, reference)
        else:
            self._ready.put_nowait(reference)

    def _admit(self, reference: ObjectReference) -> None:
        self._delayed.pop(reference).cancel()
        # The object itself caused the pause, so the pause must not count as lag of the watcher.
        self._pending[reference] = replace(self._pending[reference], since=time.monotonic())
        self._ready.put_nowait(reference)
        self._show_depth()

    def _show_depth(self) -> None:
        self._metrics.queue_depth.set(self.depth - len(self._delayed))
