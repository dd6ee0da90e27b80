"""What surrounds every attempt of an activity: it ends in one piece, is fenced, and fails in words without secrets."""

import asyncio
import logging
import random
import time
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from activities.clients import fence
from plattr.errors import PlattrError, Refusal, Superseded, Transient, Unmet, reason_of
from plattr.steps import Problem, Remedy

logger = logging.getLogger(__name__)

# 1 s: an attempt is noticed as dead within the heartbeat timeout (15 s), and learns soon that it is called off.
BEAT_SECONDS = 1.0
# 10 s after its last beat an attempt stops writing. The server gives it up 15 s after it heard of it last; the
# 5 s between cover a beat that travels late (it is sent at most 1 s after it is made, see worker/__main__.py).
FENCE_SECONDS = 10.0

# The seed's table: base delays of 1, 2 and 4 s before the second, third and fourth attempt, each times 0.5 to 1.5,
# never more than 30 s. Source: shared/seed/architecture.md, "Retry Logic".
JITTER = (0.5, 1.5)
LONGEST_DELAY_SECONDS = 30.0


class AttemptGuard(Interceptor):
    """Guards every activity of a worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  the SDK's name
        """Put the guard before the activity."""
        return _GuardedActivity(super().intercept_activity(next))


class _GuardedActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  the SDK's name
        lease = fence.Lease(time.monotonic() + FENCE_SECONDS)
        fence.lease.set(lease)
        attempt = asyncio.ensure_future(self.next.execute_activity(input))
        beating = asyncio.create_task(_beat(lease))
        try:
            return await _to_its_end(attempt, lease)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise as_failure(error, attempt=activity.info().attempt) from None
        finally:
            beating.cancel()


async def _to_its_end(attempt: asyncio.Future[Any], lease: fence.Lease) -> Any:
    """Await the attempt although the workflow may call it off: half a step is worse than a late one.

    Only when the server has given the attempt up, or the process ends, is it cut off: then nobody waits for it.
    """
    while True:
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if attempt.done():
                raise
            if details is None or not details.cancel_requested:
                lease.revoke()
                attempt.cancel()
                raise


async def _beat(lease: fence.Lease) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        # A process that was frozen past its lease must not renew it: another worker acts by now.
        if not lease.renew(time.monotonic() + FENCE_SECONDS):
            return
        activity.heartbeat()


def retry_delay(attempt: int) -> timedelta:
    """Return the pause before the next attempt, after the given one (from 1) failed."""
    base = min(2.0 ** (attempt - 1), LONGEST_DELAY_SECONDS)
    jittered = base * random.uniform(*JITTER)  # noqa: S311  spreads load, guards nothing
    return timedelta(seconds=min(jittered, LONGEST_DELAY_SECONDS))


def as_failure(error: Exception, *, attempt: int) -> ApplicationError:
    """Return the failure that goes into the workflow's history for an activity's error.

    The only detail is a Problem. An error that is not ours keeps nothing but its class: libraries quote
    statements, addresses and bodies, and those may hold a password. `from None` keeps its stack out as well.
    """
    problem = problem_of(error)
    logger.warning(
        "attempt failed",
        extra={
            "activity": activity.info().activity_type,
            "workflow": activity.info().workflow_id,
            "attempt": attempt,
            "reason": problem.reason,
            "cause": problem.message,
        },
        exc_info=error if problem.reason == UNEXPECTED else None,
    )
    return ApplicationError(
        problem.message,
        problem,
        type=problem.reason,
        non_retryable=problem.remedy is not Remedy.RETRY,
        next_retry_delay=retry_delay(attempt) if problem.remedy is Remedy.RETRY else None,
    )


UNEXPECTED = "Unexpected"


def problem_of(error: Exception) -> Problem:
    """Return what the workflow has to know of an error."""
    if isinstance(error, PlattrError):
        condition = getattr(error, "condition", None)
        return Problem(reason=reason_of(error), message=str(error), remedy=_remedy_of(error), condition=condition)
    # Tried again like a transient fault: a defect may depend on what the backends hold at the moment.
    return Problem(
        reason=UNEXPECTED,
        message=f"cannot finish the step: {type(error).__name__} in {_place_of(error)}; see the worker's log",
        remedy=Remedy.RETRY,
    )


def _remedy_of(error: PlattrError) -> Remedy:
    match error:
        case Refusal():
            return Remedy.CHANGE
        case Superseded():
            return Remedy.REREAD
        case Unmet():
            return Remedy.WAIT
        case Transient():
            return Remedy.RETRY
        case _:
            return Remedy.RETRY


def _place_of(error: Exception) -> str:
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_name} ({code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno})"
