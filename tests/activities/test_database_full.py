"""One application that uses up what the server has once for all: nobody else's database waits for it."""

import asyncio
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from psycopg import AsyncConnection
from psycopg.errors import OutOfMemory, ProgramLimitExceeded
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier
from temporalio.testing import ActivityEnvironment

from clients.kube import KubeClient
from clients.postgres import PostgresClient
from plattr.errors import BackendRefused, BackendUnavailable
from plattr.settings import Settings
from stack.endpoints import Endpoints
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants, events_of

pytestmark = [pytest.mark.attack, pytest.mark.small_postgres]

Session = AsyncConnection[TupleRow]
# Beyond what the small server has.
FAR_TOO_MANY = 200


async def stay(session: Session) -> None:
    await session.execute("BEGIN")
    await session.execute("SELECT 1")


async def fill_queue(tenants: Tenants, tenant: Tenant) -> None:
    text = "SELECT count(pg_notify('y', i || repeat('x', 7900))) FROM generate_series(1, 50) AS i"
    async with await tenants.session(tenant) as session:
        with suppress(ProgramLimitExceeded):
            while True:
                await session.execute(text)


async def test_full_queue_of_notifications_holds_nobody_up(
    databases: Databases, database_kube: KubeClient, tenants: Tenants, superuser: Superuser
) -> None:
    greedy, other, newcomer = await tenants.apply(), await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(greedy.step)
    await databases.reconcile_database(other.step)
    channel = (await tenants.secret(other))["DB_CHANNEL"]
    async with await tenants.session(other) as listening, await tenants.session(other) as bystander:
        await listening.execute(SQL("LISTEN {}").format(Identifier(channel)))
        # Older than what holds the queue, and no part of it.
        await stay(bystander)
        holders = [await tenants.session(greedy), await tenants.session(greedy)]
        for holder in holders:
            await holder.execute("LISTEN x")
        await stay(holders[0])
        # In no transaction of its own making, and not idle.
        holders[1].pgconn.send_query(b"SELECT pg_sleep(60)")
        holders[1].pgconn.flush()
        await fill_queue(tenants, greedy)

        new = await databases.reconcile_database(newcomer.step)
        await superuser.execute(SQL("ALTER ROLE {} RESET search_path").format(Identifier(other.names.app_role)))
        changed = await databases.reconcile_database(other.step)
        told = [note async for note in listening.notifies(timeout=5, stop_after=1)]
        await bystander.execute("SELECT 1")

    for holder in holders:
        await holder.close()
    assert [result.updates[0].message for result in (new, changed)] == [
        f"schema {tenant.names.schema_name!r} is ready" for tenant in (newcomer, other)
    ]
    assert [note.payload for note in told] == ["reload schema"]
    assert await tenants.query(newcomer, "SELECT 1") == [(1,)]
    assert "LISTEN" in (await events_of(database_kube, greedy))["SessionEnded"]
    assert await tenants.query(other, "SELECT pg_notification_queue_usage() < 0.1") == [(True,)]


async def test_full_queue_that_is_nobodys_of_ours_is_a_note_and_no_failure(
    databases: Databases, tenants: Tenants, superuser: Superuser, database_endpoints: Endpoints
) -> None:
    """An operator's session is not ended."""
    greedy, newcomer = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(greedy.step)
    async with await AsyncConnection.connect(database_endpoints.database_superuser_url, autocommit=True) as operator:
        await operator.execute("LISTEN x")
        await stay(operator)
        await fill_queue(tenants, greedy)

        result = await databases.reconcile_database(newcomer.step)

        await operator.execute("SELECT 1")
        await operator.execute("ROLLBACK")
    [update] = result.updates
    assert update.status == "True"
    assert "PostgREST was not told" in update.message
    assert "54000" in update.message
    assert await tenants.query(newcomer, "SELECT 1") == [(1,)]
    await superuser.execute("SELECT pg_notification_queue_usage()")


async def test_change_whose_attempt_died_before_it_told_is_told_by_the_next(
    databases: Databases, tenants: Tenants
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    channel = (await tenants.secret(tenant))["DB_CHANNEL"]
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=2)
    async with await tenants.session(tenant) as listening:
        await listening.execute(SQL("LISTEN {}").format(Identifier(channel)))

        await environment.run(databases.reconcile_database, tenant.step)
        told = [note async for note in listening.notifies(timeout=5, stop_after=1)]

    assert [note.payload for note in told] == ["reload schema"]


async def begin_logins(settings: Settings) -> list[asyncio.StreamWriter]:
    """Open connections that send the startup packet and nothing after it, until the server has no slot left."""
    body = struct.pack("!i", 196608) + b"user\0nobody\0database\0plattr\0\0"
    packet = struct.pack("!i", len(body) + 4) + body
    writers = []
    for _ in range(FAR_TOO_MANY):
        reader, writer = await asyncio.open_connection(settings.db_host, settings.db_port)
        writers.append(writer)
        writer.write(packet)
        # R: asked for a password; E: no slot.
        if await reader.read(1) == b"E":
            return writers
    raise AssertionError("the server has slots for all")


async def test_half_open_logins_are_named_and_outlasted(
    database_settings: Settings, postgres: PostgresClient, superuser: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty, patient = await PostgresClient.connect(database_settings), await PostgresClient.connect(database_settings)
    writers = await begin_logins(database_settings)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(hasty._pool, "timeout", 1.0)
            with pytest.raises(BackendUnavailable) as failure:
                await hasty.ping()
        # None of them goes before the server ends it.
        await patient.ping()
    finally:
        for writer in writers:
            writer.close()
        await hasty.close()
        await patient.close()
    assert "authentication_timeout" in str(failure.value)


async def test_full_lock_table_is_named_by_who_cannot_connect(
    databases: Databases, tenants: Tenants, superuser: Superuser, database_settings: Settings
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    hasty = await PostgresClient.connect(database_settings)
    hasty._pool.timeout = 1.0
    async with await tenants.session(tenant) as greedy:
        with pytest.raises(OutOfMemory):
            await greedy.execute("SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 100000) AS i")

        with pytest.raises((BackendUnavailable, BackendRefused)) as failure:
            await hasty.ping()

    await hasty.close()
    assert "pg_locks" in str(failure.value)
    assert await tenants.query(tenant, "SELECT 1") == [(1,)]
