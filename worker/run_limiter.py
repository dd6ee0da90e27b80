"""Limit how many runs a worker has in flight: it starts a new run when an earlier one is done, or only waits.

Temporal serves namespaces in turn only for runs that no worker has begun. Once a run has begun, its workflow tasks come
through the worker's own (sticky) queue, first come, first served. So if a worker began hundreds of runs, a later run
would wait behind all of them at every step. Runs that it does not begin wait in the server. There they are served in
turn, another worker may take them, and KEDA counts them.
https://github.com/temporalio/temporal/blob/v1.32.0/service/matching/task_queue_partition_manager.go (SupportsFairness)

By default the server breaks this limit. While the oldest task of the normal queue is more than 5 s old, the server also
sends the polls of sticky queues there. `matching.priorityBacklogForwarding` must be false; see docs/operating.md.
https://github.com/temporalio/temporal/blob/v1.32.0/service/matching/pri_matcher.go (UpdateRemotePriorityBacklogs)
"""

import asyncio
import logging
import threading
import time
from typing import Any

from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    CustomSlotSupplier,
    ExecuteActivityInput,
    Interceptor,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkflowSlotInfo,
)

logger = logging.getLogger(__name__)

# 5 s: a step that takes longer waits for a backend that hangs. Runs that need another backend must not wait for it.
WORKS_SECONDS = 5.0
# 1 s: a rollout that takes longer waits for an image or a probe, and the run asks once a second.
ROLLOUT_SECONDS = 1.0
# 15 s: after a step a run begins its next one within milliseconds, or another worker has taken it over for good.
GOES_ON_SECONDS = 15.0

# A run begins with one of these activities, and a new round begins with one too.
_FIRST = frozenset({"read_lifetime", "claim_object", "plan_cleanup"})
_FIRST_TWO = frozenset({("read_lifetime", "claim_object")})
# After these activities a run does nothing more, or only after a pause.
_LAST = frozenset(
    {
        "write_status",
        "release_object",
        "report_stuck",
        "delete_expired",
        "warn_of_expiry",
        "list_fleet",
        "request_reconciles",
        "adopt_resources",
    }
)
# A deletion continues as another run, which takes a place like any other run.
_GOES_ON = frozenset({"proceed", "alive"})


class InFlightRuns:
    """The runs that keep a worker busy. The event loop and the SDK's threads call it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy_until: dict[str, float] = {}
        # Runs that have begun again, for example after a change, and gave their places back. Otherwise a namespace
        # whose objects change all the time would keep its places for as long as that lasts.
        self._again: dict[str, float] = {}
        self._last_step: dict[str, str] = {}
        self._being_taken_on = 0
        self._lock = threading.Lock()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin_step(self, run: str, name: str) -> None:
        """Count a run as busy while its step works."""
        with self._lock:
            seconds = ROLLOUT_SECONDS if name == "await_rollout" else WORKS_SECONDS
            is_first = name in _FIRST and (self._last_step.get(run), name) not in _FIRST_TWO
            if is_first and self._busy_until.pop(run, None) is not None:
                self._again[run] = 0.0
            self._last_step[run] = name
            self._places_of(run)[run] = time.monotonic() + seconds
        if run in self._again:
            self._tell()

    def end_step(self, run: str, *, goes_on: bool) -> None:
        """Count a run as busy until its next step, or stop counting it."""
        with self._lock:
            if goes_on:
                self._places_of(run)[run] = time.monotonic() + GOES_ON_SECONDS
            else:
                self._busy_until.pop(run, None)
                self._again.pop(run, None)
                self._last_step.pop(run, None)
        self._tell()

    def try_take_on(self) -> bool:
        """Reserve a place for a run that no worker has begun; False if the worker is busy enough."""
        with self._lock:
            if self._count() + self._being_taken_on >= self._most:
                return False
            self._being_taken_on += 1
            return True

    async def take_on(self) -> None:
        """Wait until a place is reserved."""
        self._loop = asyncio.get_running_loop()
        while not self.try_take_on():
            self._news.clear()
            try:
                async with asyncio.timeout(self._next_end()):
                    await self._news.wait()
            except TimeoutError:
                continue

    def taken_on(self) -> None:
        """Return the reserved place: from now on the run's own steps count."""
        with self._lock:
            self._being_taken_on -= 1
        self._tell()

    def _count(self) -> int:
        now = time.monotonic()
        for places in (self._busy_until, self._again):
            for run in [run for run, until in places.items() if until <= now]:
                del places[run]
                self._last_step.pop(run, None)
        # As many runs that have begun again do not count. If there are more, the worker is busy, but one place stays
        # free for a new run.
        return len(self._busy_until) + min(max(0, len(self._again) - self._most), self._most - 1)

    def _places_of(self, run: str) -> dict[str, float]:
        return self._again if run in self._again else self._busy_until

    def _next_end(self) -> float | None:
        """Return the seconds until the next run stops counting by itself; None if no run will."""
        with self._lock:
            ends = [*self._busy_until.values(), *self._again.values()]
            return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _tell(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)


class RunCounter(Interceptor):
    """Tell which runs are busy, from their activities."""

    def __init__(self, in_flight: InFlightRuns) -> None:
        self._in_flight = in_flight

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  the SDK's name
        """Wrap the activity with the count."""
        return _CountedActivity(super().intercept_activity(next), self._in_flight)


class _CountedActivity(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, in_flight: InFlightRuns) -> None:  # noqa: A002  the SDK's name
        super().__init__(next)
        self._in_flight = in_flight

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  the SDK's name
        info = activity.info()
        run, name = info.workflow_run_id or "", info.activity_type
        self._in_flight.begin_step(run, name)
        # A step that fails is retried after a pause, or is the run's last one.
        goes_on = False
        try:
            result = await super().execute_activity(input)
            goes_on = name not in _LAST and getattr(result, "verdict", "proceed") in _GOES_ON
            return result
        finally:
            self._in_flight.end_step(run, goes_on=goes_on)


class _Permit(SlotPermit):
    def __init__(self, *, is_new: bool) -> None:
        self.is_new = is_new


class WorkflowTaskSlotSupplier(CustomSlotSupplier):
    """A slot for each workflow task: a fixed number for runs that have begun, and for new runs while there is room.

    A query of a run that is not in memory counts as a new run while the query lasts.
    """

    def __init__(self, slots: int, in_flight: InFlightRuns) -> None:
        self._begun = asyncio.Semaphore(slots)
        self._in_flight = in_flight
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_warned = False

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a slot. The SDK calls this before each poll."""
        self._loop = asyncio.get_running_loop()
        if ctx.is_sticky:
            await self._begun.acquire()
        else:
            await self._in_flight.take_on()
        return _Permit(is_new=not ctx.is_sticky)

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002  the SDK's signature
        """Return None: the SDK asks this only for workflows that the same client starts, and this one starts none."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Warn once if the server breaks the limit. A slot counts from its reservation on."""
        is_new = isinstance(ctx.slot_info, WorkflowSlotInfo) and not ctx.slot_info.is_sticky
        if is_new and isinstance(ctx.permit, _Permit) and not ctx.permit.is_new and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "more runs begin than RUNS_AT_ONCE says: Temporal gives those that wait to polls for begun ones; set"
                " matching.priorityBacklogForwarding to false there, see docs/operating.md"
            )

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Take a slot back. A thread of the SDK calls this."""
        if isinstance(ctx.permit, _Permit) and ctx.permit.is_new:
            self._in_flight.taken_on()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begun.release)
