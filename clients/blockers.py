"""Sessions of applications that keep one of ours waiting for a lock: ended after a moment, and named."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from clients import fence
from clients.postgres import PostgresClient
from plattr import sql_removal
from plattr.database import RECORD_PREFIX
from plattr.database_removal import Blocker

# 1 s: an honest query of a neighbour's may end by itself; half of the 5 s after which the server gives our wait up
# are left for two more looks.
GRACE_SECONDS = 1.0
PAUSE_SECONDS = 0.5


@asynccontextmanager
async def ending_blockers(postgres: PostgresClient, pid: int, seen: list[Blocker]) -> AsyncIterator[None]:
    """End, while the block runs, whatever sessions of applications keep the session `pid` waiting.

    Nobody else's session is touched: for those the wait ends with lock_timeout. `seen` has both afterwards.
    """
    over = asyncio.Event()
    watching = asyncio.create_task(_watch(postgres, pid, seen, over))
    try:
        yield
    finally:
        # Not cancelled: a session that it has just ended has to be told of.
        over.set()
        # Its own failure shows in the wait that it did not shorten.
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(postgres: PostgresClient, pid: int, seen: list[Blocker], over: asyncio.Event) -> None:
    pause = GRACE_SECONDS
    while not await _is_set(over, pause):
        fence.ensure_live()
        rows = await postgres.ask(
            sql_removal.END_BLOCKERS, "end the sessions that block", pid=pid, prefix=RECORD_PREFIX
        )
        seen += map(Blocker.model_validate, rows)
        pause = PAUSE_SECONDS


async def _is_set(over: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), seconds)
    return over.is_set()
