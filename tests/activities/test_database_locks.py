"""Locks of tenants against Plattr's: none of them reaches its lock, or holds up anybody but its own application."""

import asyncio
import time

import pytest
from psycopg import AsyncConnection
from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Identifier

from clients.postgres import PostgresClient
from plattr.errors import Conflict
from plattr.naming import PRIVATE_SCHEMA
from plattr.settings import Settings
from tests.fix_postgres import STRANGER, Databases, Superuser, Tenant, Tenants

pytestmark = pytest.mark.attack

# More than the pool has connections, so that the others would wait if each kept one.
MANY = 12


async def test_advisory_lock_on_anothers_key_holds_nobody_up(databases: Databases, tenants: Tenants) -> None:
    attacker, victim = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(attacker.step)
    key = f"plattr:{victim.target.owner.reference.key}"

    async with await tenants.session(attacker) as session:
        await session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
        async with asyncio.timeout(3):
            await databases.reconcile_database(victim.step)

    assert await tenants.query(victim, "SELECT 1") == [(1,)]


@pytest.mark.every_postgres
@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT owner FROM {PRIVATE_SCHEMA}.locks FOR UPDATE",
        f"LOCK TABLE {PRIVATE_SCHEMA}.locks IN ACCESS SHARE MODE",
        f"INSERT INTO {PRIVATE_SCHEMA}.locks VALUES ('mine')",
        f"CREATE TABLE {PRIVATE_SCHEMA}.trap ()",
        f"CREATE FUNCTION {PRIVATE_SCHEMA}.trap() RETURNS int RETURN 1",
        f"GRANT USAGE ON SCHEMA {PRIVATE_SCHEMA} TO PUBLIC",
        f"COMMENT ON SCHEMA {PRIVATE_SCHEMA} IS 'plattr:'",
        f"DROP SCHEMA {PRIVATE_SCHEMA} CASCADE",
    ],
    ids=["row", "table", "insert", "create", "function", "grant", "comment", "drop"],
)
async def test_private_schema_is_out_of_a_tenants_reach(statement: str, databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)

    with pytest.raises(InsufficientPrivilege):
        await tenants.query(tenant, "BEGIN", statement)


async def hold_own_catalogue_rows(tenants: Tenants, tenant: Tenant) -> AsyncConnection[tuple[object, ...]]:
    """Make Plattr want to write a row, and lock that row in a transaction that stays open."""
    app = Identifier(tenant.names.app_role)
    session = await tenants.session(tenant)
    await session.execute(SQL("ALTER ROLE {} RESET search_path").format(app))
    await session.execute("BEGIN")
    await session.execute(SQL("ALTER ROLE {} SET search_path TO pg_catalog").format(app))
    return session


async def test_applications_that_lock_their_own_rows_hold_up_nobody_else(
    databases: Databases, tenants: Tenants
) -> None:
    attackers = [await tenants.apply() for _ in range(MANY)]
    for attacker in attackers:
        await databases.reconcile_database(attacker.step)
    sessions = [await hold_own_catalogue_rows(tenants, attacker) for attacker in attackers]
    victim = await tenants.apply()

    attacks = [asyncio.create_task(reconcile(databases, attacker)) for attacker in attackers]
    await asyncio.sleep(0)
    began = time.monotonic()
    await databases.reconcile_database(victim.step)
    took = time.monotonic() - began

    answers = await asyncio.gather(*attacks, return_exceptions=True)
    for session in sessions:
        await session.close()
    assert {type(answer) for answer in answers} == {Conflict}
    # 12 that wait 0.5 s at 5 connections are 1.5 s; each of them waited 5 s once.
    assert took < 3


async def test_lock_that_is_held_costs_no_connection(
    database_settings: Settings, postgres: PostgresClient, superuser: Superuser
) -> None:
    client = await PostgresClient.connect(database_settings.model_copy(update={"db_pool_size": 1}))
    async with postgres.locked(STRANGER.reference, "hold the lock"):
        waiting = [asyncio.create_task(hold(client)) for _ in range(3)]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(2):
            await client.ping()
    await asyncio.gather(*waiting)

    await client.close()


@pytest.mark.every_postgres
async def test_private_schema_is_made_once_by_many_at_once(database_settings: Settings, superuser: Superuser) -> None:
    clients = [await PostgresClient.connect(database_settings) for _ in range(8)]
    for client in clients:
        await client.ping()
    await superuser.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(PRIVATE_SCHEMA)))

    await asyncio.gather(*(hold(client) for client in clients))

    for client in clients:
        await client.close()
    cursor = await superuser.execute(
        "SELECT nspowner::regrole::text, has_schema_privilege('public', oid, 'USAGE') FROM pg_namespace"
        " WHERE nspname = %s",
        [PRIVATE_SCHEMA],
    )
    assert await cursor.fetchall() == [("provisioner", False)]


async def test_private_schema_that_vanished_is_made_again(database_settings: Settings, superuser: Superuser) -> None:
    client = await PostgresClient.connect(database_settings)
    await hold(client)
    await superuser.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(PRIVATE_SCHEMA)))

    with pytest.raises(Conflict):
        await hold(client)
    await hold(client)

    await client.close()


async def test_removal_leaves_no_lock_behind(databases: Databases, tenants: Tenants, superuser: Superuser) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)

    await databases.delete_database(tenant.cleanup())

    owner = tenant.target.owner.reference.key
    cursor = await superuser.execute(f"SELECT FROM {PRIVATE_SCHEMA}.locks WHERE owner = %s".encode(), [owner])
    assert cursor.rowcount == 0


async def reconcile(databases: Databases, tenant: Tenant) -> None:
    await databases.reconcile_database(tenant.step)


async def hold(client: PostgresClient) -> None:
    async with client.locked(STRANGER.reference, "hold the lock"):
        await asyncio.sleep(0)
