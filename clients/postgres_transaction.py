"""One transaction of PostgreSQL, with queries and writes; writes ask the fence."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.sql import SQL

from clients import fence
from plattr import sql
from plattr.backends import Backend
from telemetry import tracing

# 16: since this version a grant of a role has options, and SET ROLE needs an option of its own.
GRANT_OPTIONS_VERSION = 160000


class Transaction:
    """One transaction that holds an owner's lock; it commits when its block ends without an error."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    @property
    def has_grant_options(self) -> bool:
        """Tell whether grants of roles have options here (PostgreSQL 16 and later)."""
        return self._connection.info.server_version >= GRANT_OPTIONS_VERSION

    @property
    def pid(self) -> int:
        """Return the id of the server's process for this session."""
        return self._connection.info.backend_pid

    async def fetch(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a query; the server's version sets `set_privilege` and `admin_privilege`."""
        set_privilege, admin_privilege = (
            ("SET", "SET") if self.has_grant_options else ("MEMBER", "MEMBER WITH ADMIN OPTION")
        )
        values = {"set_privilege": set_privilege, "admin_privilege": admin_privilege} | parameters
        with _span("query", [query]):
            async with self._connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(query.encode(), values)
                return await cursor.fetchall()

    async def call(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a query that also changes something."""
        fence.ensure_live()
        return await self.fetch(query, **parameters)

    async def write(self, statements: Sequence[sql.Statement]) -> None:
        """Send the statements in one round trip; without statements, send nothing."""
        if not statements:
            return
        fence.ensure_live()
        # Trace only each statement's first part, which is our own text. Names and values follow it.
        with _span("write", [next(iter(statement)).as_string() for statement in statements]):
            await self._connection.execute(SQL("; ").join(statements))

    async def verifier(self, role: str, password: str) -> str:
        """Return the password as the server stores it: the plain text never crosses the wire or enters a log."""
        encrypt = self._connection.pgconn.encrypt_password
        # In a thread: 4096 rounds of SHA-256 take milliseconds, and dozens of activities share the event loop.
        return (await asyncio.to_thread(encrypt, password.encode(), role.encode(), b"scram-sha-256")).decode()


def _span(operation: str, statements: Sequence[str]) -> AbstractContextManager[None]:
    keywords = "; ".join(tracing.keywords_of(statement) for statement in statements)
    return tracing.span(Backend.POSTGRESQL, operation, {"db.system.name": "postgresql", "db.operation.name": keywords})
