"""Waiting inside an activity: for a rollout, for pods and namespaces to go."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from temporalio import activity

# From 20 ms, since a pod may be ready at once, to 1 s, since an image takes its time and the API server has others.
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0


async def moments(limit_seconds: float) -> AsyncIterator[float]:
    """Yield the seconds passed, at once and then after growing pauses, until the limit.

    Ends early when the attempt is preempted or the worker shuts down: the next attempt goes on where this left.
    """
    begun = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    while (passed := time.monotonic() - begun) <= limit_seconds:
        yield passed
        if is_preempted():
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def time_is_up(budget: timedelta) -> Callable[[], bool]:
    """Return what tells whether a cleanup has to stop for now: its time is over, or somebody wants it to end."""
    ends = time.monotonic() + budget.total_seconds()
    return lambda: time.monotonic() >= ends or is_preempted()


def is_preempted() -> bool:
    """Tell whether somebody wants the running activity to end; never, outside one."""
    return activity.in_activity() and (activity.is_cancelled() or activity.is_worker_shutdown())
