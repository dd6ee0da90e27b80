"""Plattr's private schema: made by whichever worker comes first, and looked at by the others."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import DuplicateSchema, DuplicateTable, InternalError_, UniqueViolation
from psycopg.rows import dict_row

from clients import fence
from plattr import sql_private
from plattr.errors import BackendRefused, Conflict
from plattr.naming import PRIVATE_SCHEMA


async def ensure_private_schema(connection: AsyncConnection[Any]) -> None:
    """Return when the private schema has all its tables and the admin may use them.

    Raises:
        BackendRefused: it is another role's, or a table of it, and not open to this admin.
        Conflict: it comes and goes.
    """
    if await _is_whole(connection):
        return
    fence.ensure_live()
    try:
        async with connection.transaction():
            await connection.execute(sql_private.CREATE.encode())
    except (UniqueViolation, DuplicateSchema, DuplicateTable, InternalError_):
        # IF NOT EXISTS does not see what another session is just making, and of two REVOKEs at once one fails (XX000,
        # "tuple concurrently updated"). The other session has committed by now: all of it, or the next look says so.
        pass
    if not await _is_whole(connection):
        raise Conflict(f"cannot make schema {PRIVATE_SCHEMA!r}: somebody else changes it at the same time")


async def _is_whole(connection: AsyncConnection[Any]) -> bool:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql_private.LOOK.encode())
        row = await cursor.fetchone()
    if row is None:
        return False
    if not row["is_open"]:
        raise BackendRefused(
            f"cannot use schema {PRIVATE_SCHEMA!r}: it belongs to role {row['owner']}, which was the admin before;"
            f" give it and its tables to the admin of today (ALTER ... OWNER TO), or make him a member of that role"
        )
    # Made already, so no CREATE brings it about.
    if closed := sorted(sql_private.TABLES.keys() & set(row["closed"])):
        raise BackendRefused(
            f"cannot use {', '.join(closed)} in schema {PRIVATE_SCHEMA!r}: the admin lacks rights on what another role"
            " owns; give it to the admin of today (ALTER TABLE ... OWNER TO), or make him a member of that role"
        )
    return sql_private.TABLES.keys() <= set(row["tables"])
