"""Request a reconcile or ignore: pure decisions on what was seen, without clock or network."""

from plattr.objects import Kind
from plattr.status import Phase
from plattr.steps import CHANGED_SIGNAL, REPAIR_SIGNAL
from watcher.snapshots import ObjectRevision, ObjectSnapshot


def signal_for_change(
    seen: ObjectSnapshot, before: ObjectSnapshot | None, handled: ObjectRevision | None, *, is_from_list: bool = False
) -> str | None:
    """Return the signal that this sight of the object calls for; None: nothing to tell.

    Args:
        seen: the object now.
        before: the object as it was seen last; None at the first sight.
        handled: what the last reconcile request of this object was for, or what it was seen settled at.
        is_from_list: seen by a list, after which nothing earlier can be relied on.
    """
    # Deletion before everything else: it bumps the generation as well, and a paused object is deleted all the same.
    if seen.is_deleting:
        return _if(is_from_list or seen.revision != handled)
    if before is not None and before.revision.uid == seen.revision.uid and before.is_paused != seen.is_paused:
        if not seen.is_paused:
            # Resumed: nobody has looked after it meanwhile, whatever its status says.
            return REPAIR_SIGNAL
        # Paused: an open run has to hear of it and stop, and a preview's is always open, its clock ticking. The steps
        # of a resync, of which nothing here tells, stop by themselves (activities/loading.py).
        return _if(not seen.is_settled or seen.reference.kind is Kind.PREVIEW)
    if seen.is_paused:
        return None
    if _has_lost_finalizer(seen, before):
        # A `kubectl replace` without it, say. A deletion that came now would leave everything behind.
        return CHANGED_SIGNAL
    is_new_preview = seen.reference.kind is Kind.PREVIEW and (before is None or is_from_list)
    if is_new_preview:
        # Settled or not: its workflow is its timer, and a run that is open only hears one signal.
        return CHANGED_SIGNAL
    return _if(not seen.is_settled and (is_from_list or seen.revision != handled))


def _has_lost_finalizer(seen: ObjectSnapshot, before: ObjectSnapshot | None) -> bool:
    """Tell whether our finalizer is missing on an object that had it: nobody who has claimed anything goes without."""
    if seen.has_finalizer:
        return False
    had_it = before is not None and before.revision.uid == seen.revision.uid and before.has_finalizer
    return had_it or seen.is_settled


def signal_for_availability(owner: ObjectSnapshot | None, *, is_available: bool) -> str | None:
    """Return the signal that a Deployment's state calls for: only when it contradicts its owner's status.

    During a run (any other phase) the run itself watches the rollout, and a request would only restart it.
    """
    if owner is None or owner.is_deleting or owner.is_paused:
        return None
    has_failed_though_available = owner.phase == Phase.FAILED and owner.is_deployment_refused and is_available
    is_running_though_unavailable = owner.is_settled and not is_available
    return REPAIR_SIGNAL if has_failed_though_available or is_running_though_unavailable else None


def _if(is_wanted: bool) -> str | None:  # noqa: FBT001  one private yes or no
    return CHANGED_SIGNAL if is_wanted else None
