"""Sessions of applications that were ended: said in the log, and to their owners."""

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
    """Say whose sessions were ended.

    Args:
        events: where the owners are told.
        cluster: this one; another cluster's object is in another API server.
        ended: the sessions.
        why: for the log.
        message: for the owners.
        except_for: an object that need not be told.
    """
    for session in dict.fromkeys(ended):
        logger.warning("session ended: %s", why, extra={"holder": session.holder, "role": session.role})
    for record in dict.fromkeys(session.record for session in ended):
        owner = owner_in(record)
        if owner is not None and owner.cluster == cluster and owner.reference != except_for:
            await events.record(owner, kind_of="Warning", reason="SessionEnded", message=message)
