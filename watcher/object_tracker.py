"""Track the objects: the last snapshot of each one, and the revision that its last reconcile request was for."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from plattr.objects import Kind, ObjectReference
from plattr.steps import CHANGED_SIGNAL
from watcher.deployment_tracker import DeploymentTracker
from watcher.predicates import signal_for_change
from watcher.reconcile_queue import ReconcileRequest
from watcher.refused_previews import RefusedPreviews
from watcher.snapshots import ObjectRevision, ObjectSnapshot
from watcher.time_to_running import TimeToRunning

logger = logging.getLogger(__name__)


class ObjectTracker:
    """Turn lists and events into reconcile requests. `put` takes each request and must not lose it."""

    def __init__(
        self,
        put: Callable[[ReconcileRequest], None],
        waiting: TimeToRunning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._put = put
        self._waiting = waiting
        self._seen: dict[ObjectReference, ObjectSnapshot] = {}
        # The revision that each object's last reconcile request was for, or at which the object was seen settled.
        self._handled: dict[ObjectReference, ObjectRevision] = {}
        self.deployments = DeploymentTracker(self._seen, put, clock)
        self._refused = RefusedPreviews(self._seen, put)

    def __len__(self) -> int:
        return len(self._seen)

    def census(self) -> Mapping[tuple[str, str, str], int]:
        """Return how many objects there are by kind, environment and phase."""
        return Counter(
            (seen.reference.kind.value, seen.environment, seen.phase or "Pending") for seen in self._seen.values()
        )

    def replace(self, kind: Kind, objects: Iterable[ObjectSnapshot]) -> None:
        """Handle a list of all objects of one kind. An object that is not on the list is gone."""
        listed = {seen.reference: seen for seen in objects}
        for reference in [known for known in self._seen if known.kind is kind and known not in listed]:
            self._forget(reference)
        for seen in listed.values():
            self._look(seen, is_from_list=True)

    def change(self, event: str, seen: ObjectSnapshot) -> None:
        """Handle one event of a watch: ADDED, MODIFIED or DELETED."""
        if event == "DELETED":
            self._forget(seen.reference)
        else:
            self._look(seen)

    def _look(self, seen: ObjectSnapshot, *, is_from_list: bool = False) -> None:
        reference = seen.reference
        before = self._seen.get(reference)
        self._seen[reference] = seen
        self.deployments.expect(before, seen)
        self._waiting.look(seen)
        signal = signal_for_change(seen, before, self._handled.get(reference), is_from_list=is_from_list)
        if signal is not None or seen.is_settled:
            # Recording it now is safe, because the queue keeps every reconcile request until Temporal has accepted it.
            self._handled[reference] = seen.revision
        if signal is not None:
            is_same = before is not None and before.revision.uid == seen.revision.uid
            preempts = before is not None and is_same and bool(before.phase) and not before.is_settled
            self._put(
                ReconcileRequest(reference=reference, is_deleting=seen.is_deleting, signal=signal, preempts=preempts)
            )
        self.deployments.look(seen)
        self._refused.look(before, seen)

    def _forget(self, reference: ObjectReference) -> None:
        lost = self._seen.pop(reference, None)
        self.deployments.forget(reference, lost)
        self._refused.forget(reference, lost)
        self._waiting.forget(reference)
        self._handled.pop(reference, None)
        if lost is None or lost.is_deleting:
            return
        # The object's run may sleep until a preview's end, or between two tries. Its workflow id then blocks a cleanup
        # by hand. The signal wakes the run, and a run that finds its object gone ends. What is left stays until a
        # person asks for its removal.
        self._put(ReconcileRequest(reference=reference, is_deleting=False, signal=CHANGED_SIGNAL))
        if lost.has_finalizer:
            # Plattr's finalizer holds every deletion until the cleanup is done, so somebody may have removed it.
            logger.warning(
                "object vanished before its deletion was seen; if its finalizer was removed by hand,"
                " run plattr cleanup --orphan",
                extra={"kind": reference.kind, "namespace": reference.namespace, "object": reference.name},
            )
