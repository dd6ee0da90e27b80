"""Hand pokes to Temporal: at most one outstanding per object, the newest wins, none is lost while it is away."""

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
from watcher.metrics import WatcherMetrics
from watcher.turns import Turns

logger = logging.getLogger(__name__)

# Each asks for what those before it do, and more.
_WEAKEST_FIRST = (CHANGED_SIGNAL, REPAIR_SIGNAL, RESYNC_SIGNAL)

# 20 at once: a dev server takes some hundred a second; more would only queue there.
CONCURRENCY = 20


@dataclass(frozen=True, slots=True)
class Poke:
    """One object to tell of a change; `since` is when the oldest change that it stands for was seen."""

    reference: ObjectReference
    is_deleting: bool
    signal: str
    since: float = 0.0
    refusals: int = 0
    calls_off: bool = False
    """The object had not settled since its last change, so this one calls a run off."""


Send = Callable[[Poke], Awaitable[None]]


class Poker:
    """A queue keyed by object, so it never holds more than there are objects."""

    def __init__(self, send: Send, metrics: WatcherMetrics, *, concurrency: int = CONCURRENCY) -> None:
        self._send = send
        self._metrics = metrics
        self._concurrency = concurrency
        self._pending: dict[ObjectReference, Poke] = {}
        self._ready = Turns()
        # Objects that are queued, in a sender's hands or in the pause after a refusal: they come back by themselves.
        self._held: set[ObjectReference] = set()
        # Those among them that change too fast, until their next turn.
        self._delayed: dict[ObjectReference, asyncio.TimerHandle] = {}
        self._bursts = Bursts()
        self._failures = 0
        self._resume_at = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """Return how many objects wait for a poke or are being poked."""
        return len(self._held)

    def put(self, poke: Poke) -> None:
        """Queue a poke; one that waits for the same object is merged into it."""
        self._merge(replace(poke, since=poke.since or time.monotonic()))
        if poke.reference in self._delayed and poke.is_deleting:
            # There is one deletion in an object's life.
            self._admit(poke.reference)
        elif poke.reference not in self._held:
            self._held.add(poke.reference)
            self._line_up(poke.reference)
        self._idle.clear()
        self._show_depth()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as senders:
            for _ in range(self._concurrency):
                senders.create_task(self._send_forever())

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until nothing is outstanding; False when that took too long."""
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
            poke = self._pending.pop(reference)
            refusal_pause = 0.0
            try:
                await self._send(poke)
            except Transient as error:
                self._keep(poke)
                self._back_off(error)
            except BackendRefused as error:
                # One object's own fault must not hold up the others, but a missing search attribute is everyone's.
                self._keep(replace(poke, refusals=poke.refusals + 1))
                refusal_pause = pause_seconds(poke.refusals + 1)
                self._metrics.poke_errors.labels(poke.reference.kind, error.reason).inc()
                logger.warning("poke refused", extra={"object": poke.reference.key, "cause": str(error)})
            except asyncio.CancelledError:
                self._keep(poke)
                raise
            else:
                self._succeeded(poke)
            self._let_go(reference, refusal_pause)

    async def _outlast_pause(self) -> None:
        while True:
            # Read again after each sleep: another sender may have met the next failure, or a success.
            remaining = self._resume_at - time.monotonic()
            if remaining <= 0:
                return
            await asyncio.sleep(remaining)

    def _succeeded(self, poke: Poke) -> None:
        if self._failures:
            logger.info("temporal answers again", extra={"failures": self._failures, "waiting": self.depth})
        self._failures = 0
        self._resume_at = 0.0
        self._bursts.sent(poke.reference, calls_off=poke.calls_off and not poke.is_deleting)
        self._metrics.pokes.labels(poke.reference.kind, poke.signal).inc()
        self._metrics.lag.observe(time.monotonic() - poke.since)
        logger.info("poked", extra={"object": poke.reference.key, "signal": poke.signal, "deleting": poke.is_deleting})

    def _back_off(self, error: Transient) -> None:
        self._metrics.poke_errors.labels("", error.reason).inc()
        # The senders that were under way fail together; that is one failure, and one pause for all.
        if time.monotonic() < self._resume_at:
            return
        self._failures += 1
        self._resume_at = time.monotonic() + pause_seconds(self._failures)
        logger.warning("cannot poke, trying again", extra={"cause": str(error), "waiting": self.depth})

    def _keep(self, poke: Poke) -> None:
        newer = self._pending.get(poke.reference)
        self._pending[poke.reference] = poke
        if newer is not None:
            self._merge(newer)

    def _merge(self, poke: Poke) -> None:
        waiting = self._pending.get(poke.reference)
        if waiting is not None:
            # Whether it is being deleted, the newer sight knows.
            signal = max(waiting.signal, poke.signal, key=_WEAKEST_FIRST.index)
            since = min(waiting.since, poke.since)
            poke = replace(
                poke,
                signal=signal,
                since=since,
                refusals=max(waiting.refusals, poke.refusals),
                calls_off=waiting.calls_off or poke.calls_off,
            )
        self._pending[poke.reference] = poke

    def _let_go(self, reference: ObjectReference, pause: float) -> None:
        if reference in self._pending:
            # Still held, so a newer poke waits for the same pause.
            asyncio.get_running_loop().call_later(pause, self._line_up, reference)
        else:
            self._held.discard(reference)
        if not self._held:
            self._idle.set()
        self._show_depth()

    def _line_up(self, reference: ObjectReference) -> None:
        """Let an object wait for a sender, after a pause if it changes faster than its runs get through."""
        wait = 0.0 if self._pending[reference].is_deleting else self._bursts.wait_seconds(reference)
        if wait > 0:
            self._delayed[reference] = asyncio.get_running_loop().call_later(wait, self._admit, reference)
        else:
            self._ready.put_nowait(reference)

    def _admit(self, reference: ObjectReference) -> None:
        self._delayed.pop(reference).cancel()
        # The pause was its own doing, and is no lag of ours.
        self._pending[reference] = replace(self._pending[reference], since=time.monotonic())
        self._ready.put_nowait(reference)
        self._show_depth()

    def _show_depth(self) -> None:
        self._metrics.queue_depth.set(self.depth - len(self._delayed))
