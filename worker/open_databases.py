"""Check once per worker for other databases on the server that their owner should close to the public."""

import asyncio
import logging

from clients.postgres import PostgresClient
from plattr import sql
from plattr.errors import PlattrError

logger = logging.getLogger("worker")

# 60 s: the parts that need the server report its outage. This check can wait until the server is back.
PAUSE_SECONDS = 60.0


async def name_open_databases(postgres: PostgresClient) -> None:
    """Warn of each other database that everybody, tenants too, may connect to. Wait while the server is away."""
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
