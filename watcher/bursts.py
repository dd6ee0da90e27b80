"""Slow down objects that change faster than their runs end, because each change preempts the run."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from plattr.objects import ObjectReference
from plattr.retries import Backoff

# 3: a person who corrects a mistake twice does not have to wait.
FREE = 3
# 15 s: a run has time to end. At worst the newest spec takes effect a quarter of a minute late.
PAUSES = Backoff(first=1, longest=15)
# 30 s is twice the longest wait. With a shorter time the wait itself would end the burst.
QUIET_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Burst:
    count: int
    sent_at: float


class Bursts:
    """How long each object's next reconcile request has to wait. Keeps only objects of the last half minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Ordered by the time of the last request, the oldest first.
        self._bursts: dict[ObjectReference, _Burst] = {}

    def wait_seconds(self, reference: ObjectReference) -> float:
        """Return how long to wait before the object's next reconcile request."""
        burst = self._bursts.get(reference)
        if burst is None or burst.count < FREE:
            return 0.0
        return max(0.0, burst.sent_at + PAUSES.seconds(burst.count - FREE + 1) - self._clock())

    def sent(self, reference: ObjectReference, *, preempts: bool) -> None:
        """Record a sent reconcile request. A request that preempted no run ends the burst."""
        now = self._clock()
        before = self._bursts.pop(reference, None)
        if preempts:
            is_going_on = before is not None and now - before.sent_at < QUIET_SECONDS
            self._bursts[reference] = _Burst(before.count + 1 if before is not None and is_going_on else 1, now)
        while self._bursts:
            oldest = next(iter(self._bursts))
            if now - self._bursts[oldest].sent_at < QUIET_SECONDS:
                break
            del self._bursts[oldest]
