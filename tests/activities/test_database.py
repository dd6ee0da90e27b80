"""The database step against a real PostgreSQL and a real API server: what it makes, mends and refuses."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from psycopg import AsyncConnection, OperationalError
from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Identifier, Literal

from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.resources import SECRETS
from plattr.database import owner_record
from plattr.features import ConditionType
from plattr.manifests.secret import build_database_secret
from plattr.settings import Settings
from plattr.sql import APPLICATIONS_ROLE
from plattr.steps import StepInput
from tests.fix_postgres import (
    STRANGER,
    Crash,
    Databases,
    Fuse,
    FusedKube,
    FusedPostgres,
    Superuser,
    Tenant,
    Tenants,
    WatchedPostgres,
    activities_with,
    catalogue_rows,
)


async def assert_usable(tenants: Tenants, tenant: Tenant) -> None:
    """Assert that the application can work with its URL, and anon can read what it makes, and no more."""
    table = f"t{secrets.token_hex(3)}"
    rows = await tenants.query(
        tenant,
        f"CREATE TABLE {table} (id int)",
        f"INSERT INTO {table} VALUES (7)",
        f"SET ROLE {tenant.names.anon_role}",
        f"SELECT id, current_schema() FROM {tenant.names.schema_name}.{table}",
    )
    assert rows == [(7, tenant.names.schema_name)]


@pytest.mark.every_postgres
async def test_application_works_with_nothing_but_its_url(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()

    result = await databases.reconcile_database(tenant.step)

    [update] = result.updates
    assert (update.type, update.status, update.reason) == (ConditionType.DATABASE, "True", "Provisioned")
    await assert_usable(tenants, tenant)


@pytest.mark.attack
async def test_secret_holds_the_eight_keys(databases: Databases, tenants: Tenants, database_settings: Settings) -> None:
    tenant = await tenants.apply()
    names, settings = tenant.names, database_settings

    await databases.reconcile_database(tenant.step)

    secret = await tenants.secret(tenant)
    password = secret["DB_PASSWORD"]
    assert len(bytes.fromhex(password)) == 32
    assert secret == {
        "DATABASE_URL": f"postgresql://{names.app_role}:{password}@{settings.db_host}:{settings.db_port}"
        f"/{settings.db_name}",
        "DB_HOST": settings.db_host,
        "DB_PORT": str(settings.db_port),
        "DB_NAME": settings.db_name,
        "DB_USER": names.app_role,
        "DB_PASSWORD": password,
        "DB_SCHEMA": names.schema_name,
        "DB_CHANNEL": secret["DB_CHANNEL"],
    }
    assert re.fullmatch("plattr_[0-9a-f]{32}", secret["DB_CHANNEL"])


@pytest.mark.every_postgres
async def test_anon_cannot_write(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)

    with pytest.raises(InsufficientPrivilege):
        await tenants.query(
            tenant, "CREATE TABLE page (id int)", f"SET ROLE {tenant.names.anon_role}", "INSERT INTO page VALUES (1)"
        )


@pytest.mark.every_postgres
async def test_another_application_sees_nothing(databases: Databases, tenants: Tenants) -> None:
    tenant, other = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await databases.reconcile_database(other.step)
    await tenants.query(tenant, "CREATE TABLE page (id int)")

    with pytest.raises(InsufficientPrivilege):
        await tenants.query(other, f"SELECT * FROM {tenant.names.schema_name}.page")


async def test_only_scram_verifiers_reach_the_server(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()

    await databases.reconcile_database(tenant.step)

    cursor = await superuser.execute(
        "SELECT rolpassword FROM pg_authid WHERE rolname = ANY (%s) ORDER BY rolname",
        [[tenant.names.app_role, tenant.names.anon_role]],
    )
    anon, app = [row[0] for row in await cursor.fetchall()]
    assert anon is None
    assert app.startswith("SCRAM-SHA-256$4096:")


@pytest.mark.every_postgres
async def test_twenty_reconciles_write_nothing_after_the_first(
    database_kube: KubeClient,
    database_settings: Settings,
    watched_postgres: WatchedPostgres,
    tenants: Tenants,
    superuser: Superuser,
) -> None:
    databases = activities_with(database_kube, watched_postgres, database_settings)
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page (id int)")
    before = await catalogue_rows(superuser, tenant)
    secret = await database_kube.get(SECRETS, tenant.names.database_secret, tenants.namespace)
    watched_postgres.numbers.clear()

    for _ in range(20):
        await databases.reconcile_database(tenant.step)

    assert watched_postgres.numbers == []
    assert await catalogue_rows(superuser, tenant) == before
    assert await database_kube.get(SECRETS, tenant.names.database_secret, tenants.namespace) == secret
    await assert_usable(tenants, tenant)


@pytest.mark.parametrize("after", [False, True], ids=["before-it-is-sent", "after-it-was-done"])
@pytest.mark.parametrize(
    # The Secret, two roles with record and membership, search_path, schema with record, four of anon's access, the
    # commit; and of a rotation the Secret, the password and the commit.
    ("is_rotation", "expected_writes"),
    [(False, 16), (True, 3)],
    ids=["first-run", "rotation"],
)
async def test_crash_at_any_write_is_mended_by_the_next_run(
    after: bool,
    is_rotation: bool,
    expected_writes: int,
    database_kube: KubeClient,
    database_settings: Settings,
    databases: Databases,
    fused_postgres: FusedPostgres,
    tenants: Tenants,
) -> None:
    for writes in count(1):
        tenant = await tenants.apply()
        if is_rotation:
            await databases.reconcile_database(tenant.step)
            await tenants.delete_secret(tenant)
        fused_postgres.fuse = Fuse(writes, after=after)
        fused_kube = FusedKube(database_kube, fused_postgres.fuse)
        crashing = activities_with(fused_kube, fused_postgres, database_settings)  # type: ignore[arg-type]  # a proxy
        try:
            await crashing.reconcile_database(tenant.step)
        except Crash:
            await databases.reconcile_database(tenant.step)
            await assert_usable(tenants, tenant)
        else:
            break

    assert writes - 1 == expected_writes


@pytest.mark.every_postgres
async def test_deleted_secret_means_a_new_password(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    old = (await tenants.secret(tenant))["DATABASE_URL"]
    await tenants.delete_secret(tenant)

    await databases.reconcile_database(tenant.step)

    await assert_usable(tenants, tenant)
    with pytest.raises(OperationalError):
        await AsyncConnection.connect(old)


async def test_password_somebody_put_into_the_secret_becomes_the_roles(
    databases: Databases, database_kube: KubeClient, tenants: Tenants
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    wanted = "p@ss/word: %41 'quoted'"
    body = build_database_secret(tenant.target, await tenants.secret(tenant) | {"DB_PASSWORD": wanted})
    await database_kube.apply(SECRETS, body, tenants.namespace)

    await databases.reconcile_database(tenant.step)

    assert (await tenants.secret(tenant))["DB_PASSWORD"] == wanted
    await assert_usable(tenants, tenant)


async def test_changed_host_is_written_with_the_same_password(
    database_kube: KubeClient,
    database_settings: Settings,
    databases: Databases,
    postgres: PostgresClient,
    tenants: Tenants,
) -> None:
    moved = database_settings.model_copy(update={"db_host": "old.example.test"})
    tenant = await tenants.apply()
    await activities_with(database_kube, postgres, moved).reconcile_database(tenant.step)
    old = await tenants.secret(tenant)

    await databases.reconcile_database(tenant.step)

    secret = await tenants.secret(tenant)
    assert old["DB_HOST"] == "old.example.test"
    assert secret["DB_HOST"] == database_settings.db_host
    assert secret["DB_PASSWORD"] == old["DB_PASSWORD"]
    await assert_usable(tenants, tenant)


DRIFTS = {
    "app-cannot-become-anon": "REVOKE {anon} FROM {app} GRANTED BY {admin}",
    "app-cannot-log-in": "ALTER ROLE {app} NOLOGIN",
    "app-has-expired": "ALTER ROLE {app} VALID UNTIL '2020-01-01'",
    "app-has-another-password": "ALTER ROLE {app} PASSWORD 'other'",
    "app-has-no-search-path": "ALTER ROLE {app} RESET search_path",
    "app-has-no-connection-limit": "ALTER ROLE {app} CONNECTION LIMIT -1",
    "anon-has-a-false-record": "COMMENT ON ROLE {anon} IS {forgotten}",
    "app-cannot-connect": "REVOKE {group} FROM {app} GRANTED BY {admin}",
    "app-lost-its-schema": "ALTER SCHEMA {schema} OWNER TO {admin}",
    "anon-can-log-in": "ALTER ROLE {anon} LOGIN",
    "anon-is-gone": "DROP OWNED BY {anon}; DROP ROLE {anon}",
    "schema-has-no-record": "COMMENT ON SCHEMA {schema} IS NULL",
    "schema-has-a-false-record": "COMMENT ON SCHEMA {schema} IS {stranger}",
    "admin-may-not-act-as-app": "REVOKE {app} FROM {admin} GRANTED BY {admin}",
}


@pytest.mark.every_postgres
@pytest.mark.parametrize("statement", DRIFTS.values(), ids=DRIFTS)
async def test_what_was_changed_by_hand_is_mended(
    statement: str,
    database_kube: KubeClient,
    database_settings: Settings,
    watched_postgres: WatchedPostgres,
    tenants: Tenants,
    superuser: Superuser,
) -> None:
    databases = activities_with(database_kube, watched_postgres, database_settings)
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")
    names = {
        "schema": Identifier(tenant.names.schema_name),
        "app": Identifier(tenant.names.app_role),
        "anon": Identifier(tenant.names.anon_role),
        "group": Identifier(APPLICATIONS_ROLE),
        "admin": Identifier("provisioner"),
        "stranger": Literal(owner_record(STRANGER)),
        "forgotten": Literal(owner_record(tenant.target.owner)),
    }
    await superuser.execute(SQL(statement).format(**names))
    watched_postgres.numbers.clear()

    await databases.reconcile_database(tenant.step)
    mended = list(watched_postgres.numbers)
    await databases.reconcile_database(tenant.step)

    assert len(mended) == 1
    assert watched_postgres.numbers == mended
    rows = await tenants.query(
        tenant, f"SET ROLE {tenant.names.anon_role}", f"SELECT id FROM {tenant.names.schema_name}.page"
    )
    assert rows == [(1,)]
    await assert_usable(tenants, tenant)


async def test_table_name_of_a_tenant_is_only_a_name(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    victim = f"victim_{secrets.token_hex(4)}"
    hostile = Identifier(f'x" TO PUBLIC; CREATE SCHEMA {victim}; --%s{{}}')
    async with await tenants.session(tenant) as session:
        await session.execute(SQL("CREATE TABLE {} ()").format(hostile))
        await session.execute(SQL("REVOKE ALL ON {} FROM {}").format(hostile, Identifier(tenant.names.anon_role)))

    await databases.reconcile_database(tenant.step)

    assert (await superuser.execute("SELECT FROM pg_namespace WHERE nspname = %s", [victim])).rowcount == 0
    await assert_usable(tenants, tenant)


@pytest.mark.every_postgres
async def test_table_of_a_third_role_is_left_alone(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    table = Identifier(tenant.names.schema_name, "audit")
    await superuser.execute(SQL("CREATE TABLE {} ()").format(table))

    await databases.reconcile_database(tenant.step)

    await assert_usable(tenants, tenant)


async def test_names_of_63_bytes_work(databases: Databases, tenants: Tenants) -> None:
    # prod_{name}_anon is the longest of them.
    tenant = await tenants.apply(f"d{secrets.token_hex(26)}", schemaName=f"s{'x' * 49}{secrets.token_hex(4)}")

    await databases.reconcile_database(tenant.step)

    assert (len(tenant.names.anon_role), len(tenant.names.schema_name)) == (63, 63)
    await assert_usable(tenants, tenant)


# Trap P1 of docs/guarantees.md: without the lock most of these fail.
async def test_sixteen_applications_at_once_do_not_disturb_each_other(databases: Databases, tenants: Tenants) -> None:
    made = [await tenants.apply() for _ in range(16)]

    await at_once([tenant.step for tenant in made] * 5, databases.reconcile_database)

    for tenant in made:
        await assert_usable(tenants, tenant)


async def test_one_application_eight_times_at_once_has_one_password(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()

    await at_once([tenant.step] * 8, databases.reconcile_database)

    await assert_usable(tenants, tenant)


async def at_once(steps: list[StepInput], run: Callable[[StepInput], Awaitable[object]]) -> None:
    async with asyncio.TaskGroup() as group:
        for step in steps:
            group.create_task(run(step))  # type: ignore[arg-type]  # activities are coroutine functions
