"""End the sessions of applications that block a session of Plattr, after a grace period, and report them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from clients import fence
from clients.postgres import PostgresClient
from plattr import sql_removal
from plattr.database import RECORD_PREFIX
from plattr.database_removal import Blocker

# 1 s: an ordinary query of another application may end by itself. The server ends our wait after 5 s, so half of
# that time is left for two more checks.
GRACE_SECONDS = 1.0
PAUSE_SECONDS = 0.5


@asynccontextmanager
async def ending_blockers(postgres: PostgresClient, pid: int, seen: list[Blocker]) -> AsyncIterator[None]:
    """End sessions of applications that block the session `pid`, for as long as the `with` block runs.

    Only sessions of applications are ended. Behind any other session the wait ends with lock_timeout. Afterwards `seen`
    holds both kinds.
    """
    over = asyncio.Event()
    watching = asyncio.create_task(_watch(postgres, pid, seen, over))
    try:
        yield
    finally:
        # Do not cancel the task: it must still report a session that it has just ended.
        over.set()
        # Ignore the task's own failure: it shows as a wait that did not become shorter.
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
