"""The end of a database with thousands of things in it: small pieces, and room for everybody else meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection

from activities.database_removal import DatabaseRemovalActivities
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.postgres import PATIENCE, PostgresClient
from clients.postgres_transaction import Transaction
from plattr.objects import ObjectReference
from plattr.settings import Settings
from plattr.sql import Statement
from plattr.sql_removal import LOCKS_AT_ONCE
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants, left_of
from tests.rivals import filled, run, two_of

pytestmark = pytest.mark.attack


class MeasuredTransaction(Transaction):
    """A transaction that counts the locks it holds after each write."""

    def __init__(self, connection: AsyncConnection[Any], measured: "MeasuredPostgres") -> None:
        super().__init__(connection)
        self._measured = measured

    async def write(self, statements: Sequence[Statement]) -> None:
        await super().write(statements)
        [row] = await self.fetch("SELECT count(*) AS locks FROM pg_locks WHERE pid = pg_backend_pid()")
        self._measured.most = max(self._measured.most, row["locks"])


class MeasuredPostgres(PostgresClient):
    """The PostgreSQL client, which keeps the most locks that a transaction held."""

    most: int = 0

    @asynccontextmanager
    async def locked(
        self, reference: ObjectReference, action: str, *, patience: str = PATIENCE
    ) -> AsyncIterator[Transaction]:
        async with super().locked(reference, action, patience=patience) as transaction:
            yield MeasuredTransaction(transaction._connection, self)


@pytest.fixture
async def measured_postgres(database_settings: Settings) -> AsyncIterator[MeasuredPostgres]:
    client = await MeasuredPostgres.connect(database_settings)
    yield client
    await client.close()


async def delete_in_short_attempts(kube: KubeClient, postgres: PostgresClient, tenant: Tenant) -> None:
    """Delete in many short attempts, as a worker that is killed again and again would."""
    budget = timedelta(seconds=1)
    activities = DatabaseRemovalActivities(kube, postgres, EventRecorder(kube), cleanup_budget=budget)
    while not (await activities.delete_database(tenant.cleanup())).is_done:
        pass


async def test_thousands_of_everything_go_in_transactions_of_few_locks(
    databases: Databases,
    database_kube: KubeClient,
    tenants: Tenants,
    superuser: Superuser,
    measured_postgres: MeasuredPostgres,
) -> None:
    one, two = await two_of(databases, tenants)
    await make_many(tenants, one, two, 120)

    await delete_in_short_attempts(database_kube, measured_postgres, one)

    assert await left_of(superuser, tenants, one) == set()
    # The locks on the catalogues themselves, and on what a part belongs to, come on top.
    assert 0 < measured_postgres.most < 2 * LOCKS_AT_ONCE


async def test_any_number_of_grants_handed_on_holds_no_deletion_up(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    three = await tenants.apply()
    await databases.reconcile_database(three.step)
    async with await tenants.session(two) as session:
        await _each(session, "CREATE TABLE t%s (id int)", 600)
        grantor = three.names.app_role
        await session.execute(f"GRANT USAGE ON SCHEMA {two.names.schema_name} TO {grantor}".encode())
        await _each(session, f"GRANT SELECT ON t%s TO {grantor} WITH GRANT OPTION", 600)
    async with await tenants.session(three) as session:
        await _each(session, f"GRANT SELECT ON {two.names.schema_name}.t%s TO {one.names.app_role}", 600)

    while not (await databases.delete_database(one.cleanup())).is_done:
        pass

    assert await left_of(superuser, tenants, one) == set()


@pytest.mark.long
@pytest.mark.every_postgres
async def test_five_thousand_tables_go_while_others_connect(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    async with await tenants.session(one) as session:
        for statement in ("CREATE TABLE {one}.t%s (id int PRIMARY KEY)", "CREATE TABLE {two}.t%s (id int PRIMARY KEY)"):
            await _each(session, filled(statement, one=one, two=two), 5000)
    connected = 0

    async def connect() -> None:
        nonlocal connected
        while True:
            assert await tenants.query(two, "SELECT 1") == [(1,)]
            connected += 1

    connecting = asyncio.create_task(connect())
    while not (await databases.delete_database(one.cleanup())).is_done:
        assert not connecting.done()
    connecting.cancel()

    assert await left_of(superuser, tenants, one) == set()
    assert connected > 10


async def make_many(tenants: Tenants, one: Tenant, two: Tenant, many: int) -> None:
    """Give `one` so many of each kind, in its own schema and in another's, and things with much hanging on them."""
    made = (
        "CREATE TABLE {one}.t%s (id serial PRIMARY KEY, b int REFERENCES {one}.hub)",
        "CREATE TABLE {two}.t%s (id int PRIMARY KEY)",
        "CREATE TABLE {one}.child%s PARTITION OF {one}.parent FOR VALUES IN (%s)",
        "CREATE VIEW {one}.v%s AS SELECT * FROM {one}.hub WHERE id = %s",
        "CREATE FUNCTION {one}.f%s(int DEFAULT %s) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SEQUENCE {two}.s%s",
        "CREATE TYPE {one}.e%s AS ENUM ('a')",
        "CREATE INDEX ON {one}.hub ((id + %s))",
        "ALTER TABLE {one}.hub ADD CHECK (id <> %s)",
        "ALTER TABLE {one}.old%s ADD FOREIGN KEY (id) REFERENCES {one}.late",
    )
    await run(
        tenants,
        one,
        "CREATE TABLE {one}.hub (id int PRIMARY KEY)",
        "CREATE TABLE {one}.parent (id int) PARTITION BY LIST (id)",
        one=one,
        two=two,
    )
    async with await tenants.session(one) as session:
        # What is newer than all that refers to it.
        await _each(session, filled("CREATE TABLE {one}.old%s (id int)", one=one, two=two), many)
        await session.execute(filled("CREATE TABLE {one}.late (id int PRIMARY KEY)", one=one, two=two).encode())
        for statement in made:
            await _each(session, filled(statement, one=one, two=two), many)
        await session.execute(f"SELECT lo_create(0) FROM generate_series(1, {many})".encode())


async def _each(session: AsyncConnection[Any], statement: str, many: int) -> None:
    # 200 at a time: the tenant's own transactions have locks to take as well.
    for begin in range(0, many, 200):
        end = min(begin + 200, many)
        statements = "; ".join(statement.replace("%s", str(number)) for number in range(begin, end))
        await session.execute(statements.encode())
