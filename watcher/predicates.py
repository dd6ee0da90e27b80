"""Decide which signal a change calls for, if any. The functions are pure: they use no clock and no network."""

from plattr.objects import Kind
from plattr.status import Phase
from plattr.steps import CHANGED_SIGNAL, REPAIR_SIGNAL
from watcher.snapshots import ObjectRevision, ObjectSnapshot


def signal_for_change(
    seen: ObjectSnapshot, before: ObjectSnapshot | None, handled: ObjectRevision | None, *, is_from_list: bool = False
) -> str | None:
    """Return the signal that this snapshot of the object calls for; None if no signal is needed.

    Args:
        seen: the object now.
        before: the object as it was last seen; None the first time.
        handled: the revision of the last reconcile request, or at which the object was seen settled.
        is_from_list: whether a list delivered the snapshot. After a list no earlier knowledge is reliable.
    """
    # Deletion comes first: it raises the generation as well, and a paused object is also deleted.
    if seen.is_deleting:
        return _if(is_from_list or seen.revision != handled)
    if before is not None and before.revision.uid == seen.revision.uid and before.is_paused != seen.is_paused:
        if not seen.is_paused:
            # Resumed: no run has reconciled the object meanwhile, even if its status says Running.
            return REPAIR_SIGNAL
        # Paused: an open run must receive the signal and stop. A preview's run is always open, because of its timer.
        # Steps of a resync stop by themselves (activities/loading.py); the snapshot does not show a resync.
        return _if(not seen.is_settled or seen.reference.kind is Kind.PREVIEW)
    if seen.is_paused:
        return None
    if _has_lost_finalizer(seen, before):
        # For example after a `kubectl replace` without it. A deletion at this point would leave every resource behind.
        return CHANGED_SIGNAL
    is_new_preview = seen.reference.kind is Kind.PREVIEW and (before is None or is_from_list)
    if is_new_preview:
        # Settled or not: a preview's workflow is its timer. If the run is open, it only receives one more signal.
        return CHANGED_SIGNAL
    return _if(not seen.is_settled and (is_from_list or seen.revision != handled))


def _has_lost_finalizer(seen: ObjectSnapshot, before: ObjectSnapshot | None) -> bool:
    """Tell whether Plattr's finalizer is missing on an object that had it. Every object with claims needs it."""
    if seen.has_finalizer:
        return False
    had_it = before is not None and before.revision.uid == seen.revision.uid and before.has_finalizer
    return had_it or seen.is_settled


def signal_for_availability(owner: ObjectSnapshot | None, *, is_available: bool) -> str | None:
    """Return the signal that a Deployment's state calls for: only if it contradicts its owner's status.

    In every other phase a run is open. That run itself watches the rollout, and a request would only restart it.
    """
    if owner is None or owner.is_deleting or owner.is_paused:
        return None
    has_failed_though_available = owner.phase == Phase.FAILED and owner.is_deployment_refused and is_available
    is_running_though_unavailable = owner.is_settled and not is_available
    return REPAIR_SIGNAL if has_failed_though_available or is_running_though_unavailable else None


def _if(is_wanted: bool) -> str | None:  # noqa: FBT001  one private yes or no
    return CHANGED_SIGNAL if is_wanted else None
