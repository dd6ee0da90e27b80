"""Count and time every attempt of an activity."""

import time
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.interceptor import UNEXPECTED
from plattr.errors import PlattrError, Superseded, reason_of
from plattr.steps import StepResult
from telemetry.metrics import BACKEND_ERRORS, STEP_ATTEMPTS, STEP_SECONDS


class AttemptMeter(Interceptor):
    """Measure every activity of a worker; runs inside the guard, where an error is still the client's own."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002  the SDK's name
        """Put the meter before the activity."""
        return _MeteredActivity(super().intercept_activity(next))


class _MeteredActivity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002  the SDK's name
        step, began = activity.info().activity_type, time.monotonic()
        # Without a result or an Exception, the attempt was cut off: the process ends, or nothing waits for it any more.
        outcome, reason = "preempted", "Cancelled"
        try:
            result = await super().execute_activity(input)
        except PlattrError as error:
            # Superseded is no failure: the object changed, and the run follows.
            outcome, reason = "preempted" if isinstance(error, Superseded) else "failed", reason_of(error)
            if error.backend is not None:
                BACKEND_ERRORS.labels(error.backend, reason).inc()
            raise
        except Exception:
            outcome, reason = "failed", UNEXPECTED
            raise
        else:
            is_done = not isinstance(result, StepResult) or result.is_done
            outcome, reason = ("done", "Succeeded") if is_done else ("waiting", "NotDone")
            return result
        finally:
            STEP_SECONDS.labels(step, outcome).observe(time.monotonic() - began)
            STEP_ATTEMPTS.labels(step, reason).inc()
