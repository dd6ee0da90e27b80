"""A look, once a worker, at the doors of the database server that its owner has to close."""

import asyncio
import logging

from clients.postgres import PostgresClient
from plattr import sql
from plattr.errors import PlattrError

logger = logging.getLogger("worker")

# 60 s: an outage of the server is told of by whoever needs it; this can wait for its end.
PAUSE_SECONDS = 60.0


async def name_open_databases(postgres: PostgresClient) -> None:
    """Warn of each other database into which everybody may, tenants too; while the server is away wait for it."""
    while True:
        try:
            rows = await postgres.ask(sql.OPEN_DATABASES, "see who may connect to the other databases")
            break
        except PlattrError:
            await asyncio.sleep(PAUSE_SECONDS)
    for row in rows:
        logger.warning(
            "database open to everybody; as its owner: REVOKE CONNECT ON DATABASE ... FROM PUBLIC, and GRANT it to the"
            " admin; see docs/installing.md",
            extra={"database": row["name"]},
        )
