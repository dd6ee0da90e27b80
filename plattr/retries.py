"""When Plattr retries, and how long a step may take: every such number, in one place.

| what failed | first pause | at most | how often |
|---|---|---|---|
| an attempt of a step | 1 s, doubling, each times 0.5 to 1.5 | 30 s | 3 retries |
| a whole round of a run | 30 s, doubling | 10 min | for ever |
| a watch, or a reconcile request | 0.8 s, doubling, each times 0.5 to 1 | 30 s | for ever |
| a connection at a process's start | 0.5 s, doubling | 10 s | for ever |
"""

from dataclasses import dataclass
from datetime import timedelta

# 10: before this many doublings, every limit here is reached. More would only make the power grow.
_MOST_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing pauses between tries."""

    first: float
    """Seconds after the first failure."""
    longest: float
    """Seconds; no pause is longer."""
    factor: float = 2.0

    def seconds(self, failures: int, *, share: float = 1.0) -> float:
        """Return the pause after this many failures in a row (at least 1); `share` is the caller's jitter."""
        grown = self.first * self.factor ** min(failures - 1, _MOST_DOUBLINGS)
        return min(min(grown, self.longest) * share, self.longest)

    def pause(self, failures: int) -> timedelta:
        """Return the pause as a timedelta, without jitter."""
        return timedelta(seconds=self.seconds(failures))


# The seed's table: three retries, 1, 2 and 4 s after the previous attempt, never more than 30 s.
# Temporal's server adds no jitter, so activities/interceptor.py does.
# https://github.com/temporalio/temporal/blob/main/service/history/workflow/retry.go
STEP = Backoff(first=1, longest=30)
STEP_ATTEMPTS = 4
STEP_JITTER = (0.5, 1.5)
# The slow retry follows the quick ones: a database failover takes 10 to 30 s, an outage takes minutes or hours.
ROUND = Backoff(first=30, longest=600)
# client-go's reflector. https://github.com/kubernetes/client-go/blob/master/tools/cache/reflector.go
WATCH = Backoff(first=0.8, longest=30)
WATCH_JITTER = (0.5, 1.0)
# 10 s: the longest time that a process waits after the server is back.
CONNECT = Backoff(first=0.5, longest=10)

# 60 s: the slowest single call deletes a Keycloak realm and may take 30 s. A step may need two such calls.
ATTEMPT = timedelta(seconds=60)
# A third of the attempt: the call in flight at the end of a cleanup's budget may take up to 20 s more.
CLEANUP_BUDGET = ATTEMPT / 3
# 15 s: the longest time before a worker's death is noticed.
HEARTBEAT_TIMEOUT = timedelta(seconds=15)
# 1 s: the server notices a dead attempt within the heartbeat timeout, and an attempt soon learns that it is preempted.
BEAT_SECONDS = 1.0
# 10 s after the last heartbeat that the server accepted, an attempt stops writing.
FENCE_SECONDS = 10.0
# 5 s: from the end of an attempt's right to write until another attempt may begin. A write that was allowed must end
# within this time.
ON_ITS_WAY_SECONDS = HEARTBEAT_TIMEOUT.total_seconds() - FENCE_SECONDS
