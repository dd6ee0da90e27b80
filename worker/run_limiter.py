"""How many runs a worker has in flight: it takes a new one on when an earlier one is done, or only waits.

Temporal takes turns between namespaces only with what no worker has begun: once a run was begun, its workflow tasks
come through the worker's own (sticky) queue, first come, first served. So a worker that begins hundreds of runs makes
whoever comes later wait behind all of them at every step. Those that it does not begin wait in the server, where they
are in turn, where another worker may take them, and where KEDA counts them.
https://github.com/temporalio/temporal/blob/v1.32.0/service/matching/task_queue_partition_manager.go (SupportsFairness)

By default the server breaks this bound: while the normal queue's oldest task is more than 5 s old it sends the polls of
sticky queues there as well. `matching.priorityBacklogForwarding` has to be false; see docs/operating.md.
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

# 5 s: a step that takes longer waits for a backend that hangs; those that need another one must not wait for it.
WORKS_SECONDS = 5.0
# 1 s: a rollout that has not come by then waits for an image or a probe, and asks once a second.
ROLLOUT_SECONDS = 1.0
# 15 s: after a step a run begins the next within milliseconds, or is taken over by another worker and never comes back.
GOES_ON_SECONDS = 15.0

# With these a run begins, and begins again.
_FIRST = frozenset({"read_lifetime", "claim_object", "plan_cleanup"})
_FIRST_TWO = frozenset({("read_lifetime", "claim_object")})
# After these nothing more comes, or only after a pause.
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
# What is being deleted goes on as another run, which is taken on like any other.
_GOES_ON = frozenset({"proceed", "alive"})


class InFlightRuns:
    """The runs that a worker is busy with. Called from the event loop and from the SDK's threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy_until: dict[str, float] = {}
        # Those that have begun again, as after a change, and gave their places back: a namespace whose objects change
        # all the time would keep them for as long as that lasts.
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
        """Count a run as busy until its next step, or no longer."""
        with self._lock:
            if goes_on:
                self._places_of(run)[run] = time.monotonic() + GOES_ON_SECONDS
            else:
                self._busy_until.pop(run, None)
                self._again.pop(run, None)
                self._last_step.pop(run, None)
        self._tell()

    def try_take_on(self) -> bool:
        """Keep a place for a run that nobody has begun; False: the worker is busy enough."""
        with self._lock:
            if self._count() + self._being_taken_on >= self._most:
                return False
            self._being_taken_on += 1
            return True

    async def take_on(self) -> None:
        """Wait until a place is kept."""
        self._loop = asyncio.get_running_loop()
        while not self.try_take_on():
            self._news.clear()
            try:
                async with asyncio.timeout(self._next_end()):
                    await self._news.wait()
            except TimeoutError:
                continue

    def taken_on(self) -> None:
        """Give the kept place back: the run's steps count from now on."""
        with self._lock:
            self._being_taken_on -= 1
        self._tell()

    def _count(self) -> int:
        now = time.monotonic()
        for places in (self._busy_until, self._again):
            for run in [run for run, until in places.items() if until <= now]:
                del places[run]
                self._last_step.pop(run, None)
        # As many again may be at it. If there are more, the worker is busy, but one place is always a newcomer's.
        return len(self._busy_until) + min(max(0, len(self._again) - self._most), self._most - 1)

    def _places_of(self, run: str) -> dict[str, float]:
        return self._again if run in self._again else self._busy_until

    def _next_end(self) -> float | None:
        """Return the seconds until a run no longer counts by itself; None: only news can change anything."""
        with self._lock:
            ends = [*self._busy_until.values(), *self._again.values()]
            return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _tell(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)


class RunCounter(Interceptor):
    """Tells which runs are busy, from their activities."""

    def __init__(self, in_flight: InFlightRuns) -> None:
        self._in_flight = in_flight

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  the SDK's name
        """Put the count around the activity."""
        return _CountedActivity(super().intercept_activity(next), self._in_flight)


class _CountedActivity(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, in_flight: InFlightRuns) -> None:  # noqa: A002  the SDK's name
        super().__init__(next)
        self._in_flight = in_flight

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  the SDK's name
        info = activity.info()
        run, name = info.workflow_run_id or "", info.activity_type
        self._in_flight.begin_step(run, name)
        # What fails is tried again after a pause, or is the end.
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
    """A slot for each workflow task: so many for runs that have begun, and for new ones when there is room.

    Queries of runs that are not in memory count as new for the moment that they take.
    """

    def __init__(self, slots: int, in_flight: InFlightRuns) -> None:
        self._begun = asyncio.Semaphore(slots)
        self._in_flight = in_flight
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_warned = False

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a slot; called before each poll."""
        self._loop = asyncio.get_running_loop()
        if ctx.is_sticky:
            await self._begun.acquire()
        else:
            await self._in_flight.take_on()
        return _Permit(is_new=not ctx.is_sticky)

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002  the SDK's signature
        """Return nothing: only workflows started by this very client are taken eagerly, and it starts none."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Say once when the server lets the bound be broken; a slot counts from its reservation on."""
        is_new = isinstance(ctx.slot_info, WorkflowSlotInfo) and not ctx.slot_info.is_sticky
        if is_new and isinstance(ctx.permit, _Permit) and not ctx.permit.is_new and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "more runs begin than RUNS_AT_ONCE says: Temporal gives those that wait to polls for begun ones; set"
                " matching.priorityBacklogForwarding to false there, see docs/operating.md"
            )

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Take a slot back; called from a thread of the SDK's."""
        if isinstance(ctx.permit, _Permit) and ctx.permit.is_new:
            self._in_flight.taken_on()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begun.release)
