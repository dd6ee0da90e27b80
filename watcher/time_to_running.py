"""How long an object's owner waits: from its creation, or a change of its spec, until it is Running."""

import time
from collections.abc import Callable

from plattr.objects import ObjectReference
from watcher.metrics import WatcherMetrics
from watcher.snapshots import ObjectRevision, ObjectSnapshot

# A creationTimestamp has whole seconds; a younger object counts from when it was seen, some milliseconds late.
RESOLUTION_SECONDS = 1.0


class TimeToRunning:
    """Objects that are on their way to Running, each since when; fed with every sight of an object."""

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
        # Waits that a pause has spoilt: they count neither before the resume nor after it.
        self._spoilt: dict[ObjectReference, ObjectRevision] = {}

    def look(self, seen: ObjectSnapshot) -> None:
        """Begin to wait at a spec that no run has observed yet; end at Running, which is counted.

        Not counted: a wait that ends in a pause or a deletion, and the way back from drift, for that spec was Running.
        """
        if seen.is_paused or seen.is_deleting:
            self.forget(seen.reference)
            self._spoilt[seen.reference] = seen.revision
        elif seen.is_settled:
            self._end(seen)
        else:
            self._begin(seen)

    def forget(self, reference: ObjectReference) -> None:
        """Wait no longer for this object."""
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
