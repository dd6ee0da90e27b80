"""Timeouts and retries of every activity, as Temporal takes them; plattr/retries.py has the numbers."""

from datetime import timedelta

from temporalio.common import Priority, RetryPolicy

from plattr import retries

STEP_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=retries.STEP.first),
    backoff_coefficient=retries.STEP.factor,
    maximum_interval=timedelta(seconds=retries.STEP.longest),
    maximum_attempts=retries.STEP_ATTEMPTS,
)
START_TO_CLOSE = retries.ATTEMPT
HEARTBEAT_TIMEOUT = retries.HEARTBEAT_TIMEOUT

# 5, the lowest: the end of previews waits behind everything that people wait for. clients/temporal.py gives
# Applications 3 and previews 4. On an idle platform this makes no difference.
LATER = Priority(priority_key=5)

SLOW_RETRY = retries.ROUND


def slow_retry_delay(round_number: int) -> timedelta:
    """Return the pause after the given round (from 1): 30 s, doubling, at most 10 minutes."""
    return SLOW_RETRY.pause(round_number)
