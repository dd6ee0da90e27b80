"""Measure how long an object takes to reach Running after its creation or a change of its spec."""

import time
from collections.abc import Callable

from plattr.objects import ObjectReference
from watcher.metrics import WatcherMetrics
from watcher.snapshots import ObjectRevision, ObjectSnapshot

# A creationTimestamp has whole seconds. A younger object counts from its first sight, some milliseconds late.
RESOLUTION_SECONDS = 1.0


class TimeToRunning:
    """Objects on their way to Running, and since when. Feed it every snapshot of an object."""

    def __init__(
        self,
        metrics: WatcherMetrics,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._since: dict[ObjectReference, tuple[ObjectRevision, str, float]] = {}
        # Waits that a pause has spoilt. Neither the part before the resume nor the part after it counts.
        self._spoilt: dict[ObjectReference, ObjectRevision] = {}

    def look(self, seen: ObjectSnapshot) -> None:
        """Begin a wait at a spec that no run has observed yet. End it at Running and count it.

        A wait that ends in a pause or a deletion does not count. Neither does the repair of drift, because that spec
        was Running before.
        """
        if seen.is_paused or seen.is_deleting:
            self.forget(seen.reference)
            self._spoilt[seen.reference] = seen.revision
        elif seen.is_settled:
            self._end(seen)
        else:
            self._begin(seen)

    def forget(self, reference: ObjectReference) -> None:
        """Stop measuring this object."""
        self._since.pop(reference, None)
        self._spoilt.pop(reference, None)

    def _begin(self, seen: ObjectSnapshot) -> None:
        if seen.observed_generation >= seen.revision.generation:
            return
        begun = self._since.get(seen.reference)
        if seen.revision in (begun and begun[0], self._spoilt.get(seen.reference)):
            return
        moment = self._clock()
        if seen.observed_generation:
            self._since[seen.reference] = seen.revision, "changed", moment
        else:
            age = self._now() - seen.created_at
            since = moment - age if age > RESOLUTION_SECONDS else moment
            self._since[seen.reference] = seen.revision, "created", since

    def _end(self, seen: ObjectSnapshot) -> None:
        begun = self._since.pop(seen.reference, None)
        if begun is None:
            return
        _, change, since = begun
        kind = seen.reference.kind.value
        self._metrics.time_to_running.labels(kind, seen.environment, change).observe(self._clock() - since)
