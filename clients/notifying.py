"""Send NOTIFY, even if a session that listens keeps the server from emptying its one queue of notifications."""

import asyncio
import logging
import re
import time
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import Diagnostic, ProgramLimitExceeded
from psycopg.rows import dict_row

from clients import fence
from clients.postgres import PostgresClient
from plattr import sql, sql_notify
from plattr.database import RECORD_PREFIX
from plattr.database_removal import Blocker

logger = logging.getLogger(__name__)

# 6 s: the server warns once in five seconds. The warning goes to the first session that notifies, and names the session
# that is behind. Nothing else shows that session. A guess, such as the oldest transaction, would let one application
# have the session of another application ended.
WARNED_SECONDS = 6.0
PAUSE_SECONDS = 0.25
# Half: from this usage on, the server itself warns.
FULL_ENOUGH = 0.5


async def notify(postgres: PostgresClient, channel: str, ended: list[Blocker]) -> bool:
    """Have an application's PostgREST read its schema again; False when the server's queue has no room left.

    All databases share one queue. The server empties it only as far as the slowest listening session has read. A
    session that stays in its transaction reads nothing. If such a session belongs to an application, it is ended.
    Afterwards `ended` holds it, whatever this function raises.

    Raises:
        BackendRefused, BackendUnavailable, Conflict: as the client does.
    """
    until = time.monotonic() + WARNED_SECONDS
    async with postgres.session("tell PostgREST of the change") as connection:
        while True:
            is_told, holder = await _try(connection, channel)
            usage = await _usage(connection)
            if is_told:
                if usage >= FULL_ENOUGH:
                    logger.warning(
                        "the server's queue of notifications fills: a session listens and stays in its transaction",
                        extra={"usage": round(usage, 2), "pid": holder},
                    )
                return True
            found = await _end_holder(connection, holder) if holder is not None and usage >= FULL_ENOUGH else []
            ended += found
            if not found:
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(PAUSE_SECONDS)


async def _try(connection: AsyncConnection[Any], channel: str) -> tuple[bool, int | None]:
    """Send the NOTIFY; return whether the server accepted it, and the process that its warning names.

    The server warns once in five seconds, and only the first session that notifies.
    """
    holder: int | None = None

    def note(diagnostic: Diagnostic) -> None:
        nonlocal holder
        holder = _process_in(diagnostic.message_detail) or holder

    fence.ensure_live()
    connection.add_notice_handler(note)
    try:
        await connection.execute(sql.reload_postgrest(channel))
    except ProgramLimitExceeded:
        return False, holder
    finally:
        connection.remove_notice_handler(note)
    return True, holder


async def _end_holder(connection: AsyncConnection[Any], holder: int) -> list[Blocker]:
    fence.ensure_live()
    parameters = {"pid": holder, "prefix": RECORD_PREFIX}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql_notify.END_HOLDER.encode(), parameters)
        return [Blocker.model_validate(row) for row in await cursor.fetchall()]


async def _usage(connection: AsyncConnection[Any]) -> float:
    """Return how full the queue is; the query also makes the server free what all sessions have read."""
    cursor = await connection.execute("SELECT pg_notification_queue_usage()")
    [(usage,)] = await cursor.fetchall()
    return float(usage)


def _process_in(detail: str | None) -> int | None:
    """Return the slowest process that the server's warning names; the text may be in any language."""
    found = re.findall(r"\d+", detail or "")
    return int(found[0]) if len(found) == 1 else None
