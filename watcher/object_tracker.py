"""The objects as the watcher knows them: what was seen last, and what each object was last asked to reconcile for."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from plattr.objects import Kind, ObjectReference
from plattr.steps import CHANGED_SIGNAL
from watcher.predicates import signal_for_availability, signal_for_change
from watcher.reconcile_queue import ReconcileRequest
from watcher.snapshots import Deployment, ObjectRevision, ObjectSnapshot, Place
from watcher.time_to_running import TimeToRunning

logger = logging.getLogger(__name__)

# 2 s: an object and its Deployment come over two connections, some milliseconds apart; only what still
# contradicts after that is a flip, and not the other half of news that is on its way.
DOUBT_SECONDS = 2.0

Key = TypeVar("Key")


class ObjectTracker:
    """Turn lists and events into reconcile requests; `put` takes each reconcile request and must not lose it."""

    def __init__(
        self,
        put: Callable[[ReconcileRequest], None],
        waiting: TimeToRunning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._put = put
        self._waiting = waiting
        self._clock = clock
        self._seen: dict[ObjectReference, ObjectSnapshot] = {}
        # What each object was asked to reconcile for last, or was seen settled at.
        self._handled: dict[ObjectReference, ObjectRevision] = {}
        # By namespace and name: anybody can write an owner's labels on a Deployment of his own, so they count only on
        # the one that the owner's own would be.
        self._deployments: dict[Place, Deployment] = {}
        self._expecting: dict[Place, set[ObjectReference]] = {}
        # Since when an owner's status and its Deployment contradict each other, and what it was told of already.
        self._doubted: dict[ObjectReference, float] = {}
        self._told: dict[ObjectReference, bool] = {}
        # Previews by the parent that each was refused for, and the incarnation of it that each was told of.
        self._refused: dict[ObjectReference, set[ObjectReference]] = {}
        self._met: dict[ObjectReference, ObjectRevision] = {}
        # Before their first list an owner without a Deployment says nothing.
        self._knows_deployments = False

    def __len__(self) -> int:
        return len(self._seen)

    def census(self) -> Mapping[tuple[str, str, str], int]:
        """Return how many objects there are by kind, environment and phase."""
        return Counter(
            (seen.reference.kind.value, seen.environment, seen.phase or "Pending") for seen in self._seen.values()
        )

    def replace(self, kind: Kind, objects: Iterable[ObjectSnapshot]) -> None:
        """Take a list of all objects of one kind; what it does not name any more is gone."""
        listed = {seen.reference: seen for seen in objects}
        for reference in [known for known in self._seen if known.kind is kind and known not in listed]:
            self._forget(reference)
        for seen in listed.values():
            self._look(seen, is_from_list=True)

    def change(self, event: str, seen: ObjectSnapshot) -> None:
        """Take one event of a watch: ADDED, MODIFIED or DELETED."""
        if event == "DELETED":
            self._forget(seen.reference)
        else:
            self._look(seen)

    def replace_deployments(self, deployments: Iterable[Deployment]) -> None:
        """Take a list of all Deployments that Plattr made."""
        self._deployments = {each.place: each for each in deployments if each.owner is not None}
        self._knows_deployments = True
        # One may have vanished, or flipped, while nobody looked.
        for reference in self._seen:
            self._compare(reference)

    def change_deployment(self, event: str, deployment: Deployment) -> None:
        """Take one event of the Deployments' watch; one that is gone is an unavailable one."""
        if event == "DELETED" or deployment.owner is None:
            self._deployments.pop(deployment.place, None)
        else:
            self._deployments[deployment.place] = deployment
        for reference in self._expecting.get(deployment.place, ()):
            self._compare(reference)

    def confirm(self) -> None:
        """Request a reconcile where a status has contradicted its Deployment for long; call it each second."""
        due = self._clock() - DOUBT_SECONDS
        for reference in [doubted for doubted, since in self._doubted.items() if since <= due]:
            del self._doubted[reference]
            is_available = self._is_available(reference)
            signal = signal_for_availability(self._seen.get(reference), is_available=is_available)
            if signal is not None:
                self._told[reference] = is_available
                self._put(ReconcileRequest(reference=reference, is_deleting=False, signal=signal))

    def _look(self, seen: ObjectSnapshot, *, is_from_list: bool = False) -> None:
        reference = seen.reference
        before = self._seen.get(reference)
        self._seen[reference] = seen
        self._expect(before, seen)
        self._waiting.look(seen)
        signal = signal_for_change(seen, before, self._handled.get(reference), is_from_list=is_from_list)
        if signal is not None or seen.is_settled:
            # Remembered when it is handed over: the queue keeps every reconcile request until Temporal has taken it.
            self._handled[reference] = seen.revision
        if signal is not None:
            is_same = before is not None and before.revision.uid == seen.revision.uid
            preempts = before is not None and is_same and bool(before.phase) and not before.is_settled
            self._put(
                ReconcileRequest(reference=reference, is_deleting=seen.is_deleting, signal=signal, preempts=preempts)
            )
        # The Deployment may have flipped while a run was open, and nobody was told.
        if self._knows_deployments or seen.place in self._deployments:
            self._compare(reference)
        if before is None or before.awaited_parent != seen.awaited_parent:
            self._list_refused(before, seen)
        for preview in (reference, *self._refused.get(reference, ())):
            self._meet_parent(self._seen[preview])

    def _expect(self, before: ObjectSnapshot | None, seen: ObjectSnapshot | None) -> None:
        if before is not None and before.place is not None:
            _drop(self._expecting, before.place, before.reference)
        if seen is not None and seen.place is not None:
            self._expecting.setdefault(seen.place, set()).add(seen.reference)

    def _list_refused(self, before: ObjectSnapshot | None, seen: ObjectSnapshot | None) -> None:
        if before is not None and before.awaited_parent is not None:
            _drop(self._refused, before.awaited_parent, before.reference)
        if seen is not None and seen.awaited_parent is not None:
            self._refused.setdefault(seen.awaited_parent, set()).add(seen.reference)

    def _meet_parent(self, preview: ObjectSnapshot) -> None:
        """Request a reconcile of a preview once for each revision of the parent that it was refused for."""
        parent = self._seen.get(preview.awaited_parent) if preview.awaited_parent is not None else None
        if parent is None or parent.is_deleting or preview.is_deleting or preview.is_paused:
            return
        if self._met.get(preview.reference) != parent.revision:
            self._met[preview.reference] = parent.revision
            self._put(ReconcileRequest(reference=preview.reference, is_deleting=False, signal=CHANGED_SIGNAL))

    def _is_available(self, reference: ObjectReference) -> bool:
        seen = self._seen.get(reference)
        deployment = self._deployments.get(seen.place) if seen is not None and seen.place is not None else None
        return deployment is not None and deployment.owner == reference and deployment.is_available

    def _compare(self, reference: ObjectReference) -> None:
        is_available = self._is_available(reference)
        signal = signal_for_availability(self._seen.get(reference), is_available=is_available)
        if signal is None:
            self._told.pop(reference, None)
            self._doubted.pop(reference, None)
        elif self._told.get(reference) is not is_available:
            self._doubted.setdefault(reference, self._clock())

    def _forget(self, reference: ObjectReference) -> None:
        lost = self._seen.pop(reference, None)
        self._expect(lost, None)
        self._list_refused(lost, None)
        self._waiting.forget(reference)
        for memory in (self._handled, self._told, self._doubted, self._met):
            memory.pop(reference, None)
        if lost is None or lost.is_deleting:
            return
        # Its run may sleep until a preview's end, or between two tries, and keeps the id from a cleanup by hand. A run
        # that finds its object gone ends; what is left is removed only when a person asks for it.
        self._put(ReconcileRequest(reference=reference, is_deleting=False, signal=CHANGED_SIGNAL))
        if lost.has_finalizer:
            # Our finalizer holds every deletion until the cleanup is done, so somebody may have taken it off.
            logger.warning(
                "object vanished before its deletion was seen; if its finalizer was removed by hand,"
                " run plattr cleanup --orphan",
                extra={"kind": reference.kind, "namespace": reference.namespace, "object": reference.name},
            )


def _drop(index: dict[Key, set[ObjectReference]], key: Key, reference: ObjectReference) -> None:
    members = index[key]
    members.discard(reference)
    if not members:
        del index[key]
