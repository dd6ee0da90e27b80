"""Plattr's private schema: the first worker creates it, and every later worker checks it."""

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
        BackendRefused: another role owns the schema or one of its tables, and this admin has no rights on it.
        Conflict: somebody else changes the schema at the same time.
    """
    if await _is_whole(connection):
        return
    fence.ensure_live()
    try:
        async with connection.transaction():
            await connection.execute(sql_private.CREATE.encode())
    except (UniqueViolation, DuplicateSchema, DuplicateTable, InternalError_):
        # IF NOT EXISTS does not see what another session is creating at the same time. Of two concurrent REVOKEs one
        # fails (XX000, "tuple concurrently updated"). The second session has committed by now. If its schema is not
        # complete, the next check reports it.
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
    # These tables exist already, so CREATE cannot give the rights.
    if closed := sorted(sql_private.TABLES.keys() & set(row["closed"])):
        raise BackendRefused(
            f"cannot use {', '.join(closed)} in schema {PRIVATE_SCHEMA!r}: the admin lacks rights on what another role"
            " owns; give it to the admin of today (ALTER TABLE ... OWNER TO), or make him a member of that role"
        )
    return sql_private.TABLES.keys() <= set(row["tables"])
