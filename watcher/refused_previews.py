"""Previews that were refused because of their parent, and the parent's revision that each was last told of."""

from collections.abc import Callable, Mapping

from plattr.objects import ObjectReference
from plattr.steps import CHANGED_SIGNAL
from watcher.reconcile_queue import ReconcileRequest
from watcher.reference_index import ReferenceIndex
from watcher.snapshots import ObjectRevision, ObjectSnapshot


class RefusedPreviews:
    """Request a reconcile of a refused preview once for each revision of the parent that caused the refusal."""

    def __init__(
        self, objects: Mapping[ObjectReference, ObjectSnapshot], put: Callable[[ReconcileRequest], None]
    ) -> None:
        self._objects = objects
        self._put = put
        self._by_parent: ReferenceIndex[ObjectReference] = ReferenceIndex()
        # The parent's revision that each preview's last reconcile request was for.
        self._told: dict[ObjectReference, ObjectRevision] = {}

    def look(self, before: ObjectSnapshot | None, seen: ObjectSnapshot) -> None:
        """Handle a snapshot of an object, which may be a refused preview or the parent of some."""
        if before is None or before.awaited_parent != seen.awaited_parent:
            old = before.awaited_parent if before is not None else None
            self._by_parent.move(seen.reference, old, seen.awaited_parent)
        for preview in (seen.reference, *self._by_parent[seen.reference]):
            self._tell(self._objects[preview])

    def forget(self, reference: ObjectReference, lost: ObjectSnapshot | None) -> None:
        """Drop what is known of an object that is gone."""
        if lost is not None:
            self._by_parent.move(reference, lost.awaited_parent, None)
        self._told.pop(reference, None)

    def _tell(self, preview: ObjectSnapshot) -> None:
        parent = self._objects.get(preview.awaited_parent) if preview.awaited_parent is not None else None
        if parent is None or parent.is_deleting or preview.is_deleting or preview.is_paused:
            return
        if self._told.get(preview.reference) != parent.revision:
            self._told[preview.reference] = parent.revision
            self._put(ReconcileRequest(reference=preview.reference, is_deleting=False, signal=CHANGED_SIGNAL))
