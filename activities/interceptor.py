"""Guard every attempt of an activity: it is not cut off, its writes are fenced, its errors hold no secrets."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from clients import fence
from plattr.errors import FencedOff, PlattrError, Refusal, Superseded, Transient, Unmet, reason_of
from plattr.retries import BEAT_SECONDS, FENCE_SECONDS, ON_ITS_WAY_SECONDS, STEP, STEP_JITTER
from plattr.steps import Problem, Remedy

logger = logging.getLogger(__name__)

# 4 s: the server answers in milliseconds. Two unanswered heartbeats must fit in before the lease ends.
ANSWER_SECONDS = 4.0
# 1 s: the server's clock and ours usually differ by less. If not, the attempt asks the server before it begins.
FRESH_SECONDS = 1.0


async def beat_acknowledged() -> None:
    """Record a heartbeat and return when the server has accepted it.

    Acceptance proves that this attempt was the only one until now.

    Raises:
        RPCError: NOT_FOUND when the server has given the attempt up; other codes when the server cannot be reached.
    """
    handle = activity.client().get_async_activity_handle(task_token=activity.info().task_token)
    # The attempt is preempted but still valid. The SDK's own heartbeat reports the preemption.
    with suppress(AsyncActivityCancelledError):
        await handle.heartbeat()


class AttemptGuard(Interceptor):
    """Guards every activity of a worker."""

    def __init__(self, ask_server: Callable[[], Awaitable[None]] = beat_acknowledged) -> None:
        self._ask_server = ask_server

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  the SDK's name
        """Put the guard before the activity."""
        return _GuardedActivity(super().intercept_activity(next), self._ask_server)


class _GuardedActivity(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, ask_server: Callable[[], Awaitable[None]]) -> None:  # noqa: A002  the SDK's name
        super().__init__(next)
        self._ask_server = ask_server

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  the SDK's name
        try:
            lease, last_moment = await self._first_lease()
            fence.lease.set(lease)
            attempt = asyncio.ensure_future(self.next.execute_activity(input))
            beating = asyncio.create_task(self._beat(lease, last_moment))
            try:
                return await _to_its_end(attempt, lease)
            finally:
                beating.cancel()
        except Exception as error:  # noqa: BLE001  everything that leaves an attempt becomes a Problem
            raise as_failure(error, attempt=activity.info().attempt) from None

    async def _first_lease(self) -> tuple[fence.Lease, float]:
        """Return the first lease of an attempt, and the moment beyond which no heartbeat can extend it.

        The process may have been frozen between taking the task and this call.

        Raises:
            FencedOff: the server has given the attempt up, or cannot be reached.
        """
        begun = time.monotonic()
        age = (datetime.now(UTC) - activity.info().started_time).total_seconds()
        if abs(age) >= FRESH_SECONDS:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._ask_server()
            except (RPCError, TimeoutError):
                raise FencedOff(
                    f"cannot begin: by its clock the server started this attempt {age:.0f} s ago, and it does not say"
                    " that it still waits for it"
                ) from None
            # The attempt is valid, so the clocks differ. Whatever they say, it is younger than a heartbeat timeout.
            age = 0
        age = max(age, 0)
        longest = activity.info().start_to_close_timeout
        last_moment = begun - age + longest.total_seconds() - ON_ITS_WAY_SECONDS if longest else math.inf
        return fence.Lease(min(begun - age + FENCE_SECONDS, last_moment)), last_moment

    async def _beat(self, lease: fence.Lease, last_moment: float) -> None:
        """Send heartbeats, and renew the lease each time the server accepts one.

        Only the server's answer counts. A worker that has lost its connection sends heartbeats that never arrive.
        Before it notices, the server may have given the task to another worker. An expired lease is never renewed.
        """
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if not lease.is_live:
                return
            # The SDK's own heartbeat: its answer tells the attempt that it is preempted.
            activity.heartbeat()
            sent = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._ask_server()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    lease.revoke()
            except TimeoutError:
                continue
            else:
                lease.renew(min(sent + FENCE_SECONDS, last_moment))


async def _to_its_end(attempt: asyncio.Future[Any], lease: fence.Lease) -> Any:
    """Await the attempt even if the workflow cancels it, because half a step is worse than a late step.

    The attempt is cut off only when the server has given it up or the process ends. Then nothing waits for it.
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


def retry_delay(attempt: int) -> timedelta:
    """Return the pause before the next attempt, after the given one (from 1) failed."""
    share = random.uniform(*STEP_JITTER)  # noqa: S311  spreads load, guards nothing
    return timedelta(seconds=STEP.seconds(attempt, share=share))


def as_failure(error: Exception, *, attempt: int) -> ApplicationError:
    """Return the failure that goes into the workflow's history for an activity's error.

    The only detail is a Problem. An error of a library keeps nothing but its class: libraries quote statements,
    addresses and bodies, and these may hold a password. `from None` also keeps the stack out of the history.
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
    """Return what the workflow has to know about an error."""
    if isinstance(error, PlattrError):
        condition = getattr(error, "condition", None)
        return Problem(
            reason=reason_of(error),
            message=str(error),
            remedy=_remedy_of(error),
            condition=condition,
            again_at=error.again_at,
        )
    # Retry like a transient fault: a defect may depend on what the backends hold at the moment.
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
