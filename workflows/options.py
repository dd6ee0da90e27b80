"""Timeouts and retries of every activity, with their reasons."""

from datetime import timedelta

from temporalio.common import Priority, RetryPolicy

# The seed's table: three retries after the first attempt, after 1, 2 and 4 s, capped at 30 s. The jitter of
# 0.5 to 1.5 is put in by activities/interceptor.py as next_retry_delay: Temporal's server has none of its own.
# https://github.com/temporalio/temporal/blob/main/service/history/workflow/retry.go
STEP_RETRIES = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=4,
)

# 60 s: the slowest single call is Keycloak's deletion of a realm, given 30 s, and a step may need two of these.
START_TO_CLOSE = timedelta(seconds=60)

# 15 s: how long a dead worker goes unnoticed. activities/interceptor.py beats each second and stops writing 10 s
# after its last beat, so an attempt that the server has given up can write nothing more.
HEARTBEAT_TIMEOUT = timedelta(seconds=15)

# 5, the last: the end of previews stands behind everything that people wait for (clients/temporal.py has
# Applications at 3 and previews at 4); on an idle platform it makes no difference.
LATER = Priority(priority_key=5)

# The slow retry after the quick ones: a database failover takes 10 to 30 s, an outage minutes or hours.
SLOW_RETRY_FIRST = timedelta(seconds=30)
SLOW_RETRY_LONGEST = timedelta(minutes=10)


def slow_retry_delay(round_number: int) -> timedelta:
    """Return the pause after the given round (from 1): 30 s, doubling, at most 10 minutes."""
    # 2**5 * 30 s exceeds ten minutes; the bound keeps the power small however long an outage lasts.
    doublings = min(round_number - 1, 5)
    return min(SLOW_RETRY_FIRST * (1 << doublings), SLOW_RETRY_LONGEST)
