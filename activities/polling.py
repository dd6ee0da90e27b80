"""Wait inside an activity, for example for a rollout, or until pods and namespaces are gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from temporalio import activity

# From 20 ms, because a pod may be ready at once, to 1 s, because a slow image must not burden the API server.
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0


async def moments(limit_seconds: float) -> AsyncIterator[float]:
    """Yield the seconds passed, first at once and then after growing pauses, until the limit.

    The iteration ends early when the attempt is preempted or the worker shuts down. The next attempt continues.
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
    """Return a function that tells whether a cleanup must stop: its time is up, or the activity is to end."""
    ends = time.monotonic() + budget.total_seconds()
    return lambda: time.monotonic() >= ends or is_preempted()


def is_preempted() -> bool:
    """Tell whether the running activity is to end; always False outside an activity."""
    return activity.in_activity() and (activity.is_cancelled() or activity.is_worker_shutdown())
