"""Report ended sessions of applications, in the log and to their owners."""

import logging
from collections.abc import Sequence

from clients.events import EventRecorder
from plattr.database_removal import Blocker, owner_in
from plattr.objects import ObjectReference

logger = logging.getLogger(__name__)


async def tell_of_sessions(
    events: EventRecorder,
    cluster: str,
    ended: Sequence[Blocker],
    *,
    why: str,
    message: str,
    except_for: ObjectReference | None = None,
) -> None:
    """Report whose sessions were ended.

    Args:
        events: Records the Events for the owners.
        cluster: The name of this cluster; objects of another cluster are in another API server.
        ended: The sessions.
        why: The reason, for the log.
        message: The text for the owners.
        except_for: An object that needs no Event.
    """
    for session in dict.fromkeys(ended):
        logger.warning("session ended: %s", why, extra={"holder": session.holder, "role": session.role})
    for record in dict.fromkeys(session.record for session in ended):
        owner = owner_in(record)
        if owner is not None and owner.cluster == cluster and owner.reference != except_for:
            await events.record(owner, kind_of="Warning", reason="SessionEnded", message=message)
