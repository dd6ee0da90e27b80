"""The end of a database: everything of one owner goes, nothing of another's, in whatever state it is found."""

import asyncio
import secrets
from itertools import count

import pytest
from psycopg import AsyncConnection, OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.errors import AdminShutdown
from psycopg.sql import SQL, Identifier, Literal

from clients.kube import KubeClient
from clients.resources import SECRETS, custom_resource
from plattr.claims import Claim
from plattr.database import owner_record
from plattr.errors import BackendRefused, Conflict
from plattr.features import ClaimKind
from plattr.objects import Kind, ObjectReference, Owner
from plattr.settings import Settings
from stack.endpoints import Endpoints
from tests.fix_postgres import (
    Crash,
    Databases,
    Fuse,
    FusedKube,
    FusedPostgres,
    Superuser,
    Tenants,
    WatchedPostgres,
    activities_with,
    left_of,
)


async def large_objects(superuser: Superuser) -> set[int]:
    cursor = await superuser.execute("SELECT oid::bigint FROM pg_largeobject_metadata")
    return {row[0] for row in await cursor.fetchall()}


@pytest.mark.every_postgres
async def test_nothing_is_left_and_others_are_untouched(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant, other = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await databases.reconcile_database(other.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id", "CREATE VIEW latest AS SELECT * FROM page")
    await tenants.query(other, "CREATE TABLE page AS SELECT 1 AS id")

    await databases.delete_database(tenant.cleanup())

    assert await left_of(superuser, tenants, tenant) == set()
    assert await tenants.query(other, "SELECT id FROM page") == [(1,)]


@pytest.mark.every_postgres
async def test_another_database_that_lets_the_admin_not_in_is_named_with_the_remedy(
    databases: Databases, tenants: Tenants, superuser: Superuser, database_endpoints: Endpoints
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    name = f"other-{secrets.token_hex(4)}"
    database, role = Identifier(name), Identifier(tenant.names.app_role)
    await superuser.execute(SQL("CREATE DATABASE {}").format(database))
    await superuser.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database))
    url = make_conninfo(database_endpoints.database_superuser_url, dbname=name)
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(SQL("CREATE TABLE t (); ALTER TABLE t OWNER TO {}").format(role))
    try:
        with pytest.raises(BackendRefused) as refusal:
            await databases.delete_database(tenant.cleanup())
        remedy = str(refusal.value).rpartition("; ")[2]
        await superuser.execute(remedy.encode())
        await databases.delete_database(tenant.cleanup())

        assert remedy.startswith(f'GRANT CONNECT ON DATABASE "{name}" TO ')
        assert await left_of(superuser, tenants, tenant) == set()
    finally:
        await superuser.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(database))


@pytest.mark.every_postgres
async def test_second_delete_writes_nothing(
    database_kube: KubeClient,
    database_settings: Settings,
    watched_postgres: WatchedPostgres,
    tenants: Tenants,
    superuser: Superuser,
) -> None:
    databases = activities_with(database_kube, watched_postgres, database_settings)
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await databases.delete_database(tenant.cleanup())
    watched_postgres.numbers.clear()

    await databases.delete_database(tenant.cleanup())

    assert watched_postgres.numbers == []
    assert await left_of(superuser, tenants, tenant) == set()


@pytest.mark.every_postgres
@pytest.mark.parametrize("after", [False, True], ids=["before-it-is-sent", "after-it-was-done"])
async def test_crash_at_any_write_is_finished_by_the_next_run(
    after: bool,
    database_kube: KubeClient,
    database_settings: Settings,
    databases: Databases,
    fused_postgres: FusedPostgres,
    tenants: Tenants,
    superuser: Superuser,
) -> None:
    for writes in count(1):
        tenant = await tenants.apply()
        await databases.reconcile_database(tenant.step)
        await tenants.query(tenant, "CREATE TABLE page (id int)", "CREATE VIEW latest AS SELECT * FROM page")
        fused_postgres.fuse = Fuse(writes, after=after)
        fused_kube = FusedKube(database_kube, fused_postgres.fuse)
        crashing = activities_with(fused_kube, fused_postgres, database_settings)  # type: ignore[arg-type]  # a proxy
        try:
            await crashing.delete_database(tenant.cleanup())
        except Crash:
            await databases.delete_database(tenant.cleanup())
            assert await left_of(superuser, tenants, tenant) == set()
        else:
            break

    # NOLOGIN and its commit; a lock, view and table and their commit; the schema, what is owned, two roles and their
    # commit; the Secret.
    assert writes > 11


@pytest.mark.every_postgres
async def test_sessions_of_the_application_are_ended_first(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page (id int)")
    idle = await tenants.session(tenant)
    # Idle in a transaction, with a lock that would hold up the drop.
    await idle.execute("BEGIN")
    await idle.execute("LOCK TABLE page IN ACCESS EXCLUSIVE MODE")

    await databases.delete_database(tenant.cleanup())

    with pytest.raises(AdminShutdown):
        await idle.execute("SELECT 1")
    assert await left_of(superuser, tenants, tenant) == set()
    await idle.close()


async def test_database_under_load_goes_at_once(databases: Databases, tenants: Tenants, superuser: Superuser) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page (id int)")
    url = (await tenants.secret(tenant))["DATABASE_URL"]
    writes = 0

    async def client() -> None:
        nonlocal writes
        while True:
            async with await AsyncConnection.connect(url, autocommit=True) as session:
                for _ in range(20):
                    await session.execute("INSERT INTO page VALUES (1)")
                    writes += 1
                    await asyncio.sleep(0.005)

    clients = [asyncio.create_task(client()) for _ in range(5)]
    while writes < 50:
        await asyncio.sleep(0.01)

    await databases.delete_database(tenant.cleanup())

    ends = await asyncio.wait_for(asyncio.gather(*clients, return_exceptions=True), 10)
    assert [isinstance(end, OperationalError) for end in ends] == [True] * 5
    assert await left_of(superuser, tenants, tenant) == set()


async def test_lock_of_somebody_else_is_a_conflict_and_no_loss(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page (id int)")
    async with superuser.transaction():
        await superuser.execute(
            SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(Identifier(tenant.names.schema_name, "page"))
        )
        with pytest.raises(Conflict) as conflict:
            await databases.delete_database(tenant.cleanup())

    await databases.delete_database(tenant.cleanup())

    assert "55P03" in str(conflict.value)
    assert f"role postgres (pid {superuser.info.backend_pid})" in str(conflict.value)
    assert await left_of(superuser, tenants, tenant) == set()


@pytest.mark.every_postgres
async def test_large_objects_go_with_their_owner(databases: Databases, tenants: Tenants, superuser: Superuser) -> None:
    tenant, other = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await databases.reconcile_database(other.step)
    # One more than a batch.
    rows = await tenants.query(tenant, "SELECT lo_create(0)::bigint FROM generate_series(1, 1001)")
    [(kept,)] = await tenants.query(other, "SELECT lo_create(0)::bigint")

    await databases.delete_database(tenant.cleanup())

    left = await large_objects(superuser)
    assert left.isdisjoint(row[0] for row in rows)
    assert kept in left
    await databases.delete_database(other.cleanup())


@pytest.mark.every_postgres
async def test_tables_of_a_third_role_go_with_the_schema(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await superuser.execute(SQL("CREATE TABLE {} ()").format(Identifier(tenant.names.schema_name, "audit")))

    await databases.delete_database(tenant.cleanup())

    assert await left_of(superuser, tenants, tenant) == set()


async def test_former_schema_goes_too(databases: Databases, tenants: Tenants, superuser: Superuser) -> None:
    former = await tenants.apply()
    await databases.reconcile_database(former.step)
    tenant = await tenants.apply(former.names.stem, schemaName=f"s{secrets.token_hex(4)}")
    await databases.reconcile_database(tenant.step)
    before = await left_of(superuser, tenants, former)

    await databases.delete_database(tenant.cleanup())

    assert former.names.schema_name in before
    assert await left_of(superuser, tenants, former) == set()
    assert await left_of(superuser, tenants, tenant) == set()


LIES = {
    "record-removed": "COMMENT ON SCHEMA {schema} IS NULL",
    "record-of-another": "COMMENT ON SCHEMA {schema} IS {other}",
}


@pytest.mark.parametrize("statement", LIES.values(), ids=LIES)
async def test_application_cannot_talk_its_schema_out_of_the_cleanup(
    statement: str, databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant, other = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(tenant.step)
    names = {"schema": Identifier(tenant.names.schema_name), "other": Literal(owner_record(other.target.owner))}
    async with await tenants.session(tenant) as session:
        await session.execute(SQL(statement).format(**names))

    await databases.delete_database(other.cleanup())
    untouched = await left_of(superuser, tenants, tenant)
    await databases.delete_database(tenant.cleanup())

    assert tenant.names.schema_name in untouched
    assert await left_of(superuser, tenants, tenant) == set()


async def test_owner_whose_name_begins_alike_keeps_its_database(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    longer = await tenants.apply(f"{tenant.names.stem}-2")
    await databases.reconcile_database(tenant.step)
    await databases.reconcile_database(longer.step)

    await databases.delete_database(tenant.cleanup())

    assert await tenants.query(longer, "SELECT 1") == [(1,)]


@pytest.mark.every_postgres
async def test_retained_data_stays_and_nobody_logs_in(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")
    url = (await tenants.secret(tenant))["DATABASE_URL"]
    idle = await tenants.session(tenant)

    await databases.delete_database(tenant.cleanup(retain=True))
    await databases.delete_database(tenant.cleanup(retain=True))

    with pytest.raises(OperationalError):
        await AsyncConnection.connect(url)
    with pytest.raises(AdminShutdown):
        await idle.execute("SELECT 1")
    names = tenant.names
    assert await left_of(superuser, tenants, tenant) == {names.schema_name, names.app_role, names.anon_role}
    await idle.close()


@pytest.mark.every_postgres
async def test_object_made_again_after_retain_finds_its_data_under_a_new_password(
    databases: Databases, tenants: Tenants
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")
    old = await tenants.secret(tenant)
    await databases.delete_database(tenant.cleanup(retain=True))
    again = await tenants.recreate(tenant)

    await databases.reconcile_database(again.step)

    assert await tenants.query(again, "SELECT id FROM page") == [(1,)]
    assert (await tenants.secret(again))["DB_PASSWORD"] != old["DB_PASSWORD"]


async def test_what_the_predecessor_retained_outlives_an_object_that_took_another_schema(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")
    await databases.delete_database(tenant.cleanup(retain=True))
    other = await tenants.recreate(tenant, schemaName=f"{tenant.names.stem}_other")
    await databases.reconcile_database(other.step)
    await tenants.query(other, "CREATE TABLE page AS SELECT 2 AS id")
    retained = (
        Claim(kind=ClaimKind.SCHEMA, name=tenant.names.schema_name),
        Claim(kind=ClaimKind.ROLES, name=tenant.names.sql_stem),
    )

    await databases.delete_database(other.cleanup(*retained))

    roles = {tenant.names.app_role, tenant.names.anon_role}
    assert await left_of(superuser, tenants, other) == roles
    assert await left_of(superuser, tenants, tenant) == {*roles, tenant.names.schema_name}
    [(can_login,)] = await (
        await superuser.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (tenant.names.app_role,))
    ).fetchall()
    assert not can_login
    again = await tenants.recreate(other)
    await databases.reconcile_database(again.step)
    assert await tenants.query(again, "INSERT INTO page VALUES (3) RETURNING id") == [(3,)]
    assert await tenants.query(again, "SELECT id FROM page ORDER BY id") == [(1,), (3,)]


async def test_late_cleanup_leaves_the_living_incarnation_alone(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    again = await tenants.recreate(tenant)
    await databases.reconcile_database(again.step)

    await databases.delete_database(tenant.cleanup())

    assert await tenants.query(again, "SELECT 1") == [(1,)]


async def test_cleanup_needs_no_object(
    databases: Databases, database_kube: KubeClient, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await database_kube.delete(custom_resource(Kind.APPLICATION), tenant.names.stem, tenants.namespace)

    await databases.delete_database(tenant.cleanup().model_copy(update={"uid": ""}))

    assert await left_of(superuser, tenants, tenant) == set()


async def test_secret_of_another_feature_stays(
    databases: Databases, database_kube: KubeClient, tenants: Tenants
) -> None:
    tenant = await tenants.apply()
    name = tenant.names.user_env
    metadata = {"name": name, "labels": tenant.target.labels, "annotations": tenant.target.annotations}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    await database_kube.create(SECRETS, body, tenants.namespace)

    await databases.delete_database(tenant.cleanup())

    assert await database_kube.get(SECRETS, name, tenants.namespace) is not None


async def test_owner_without_a_database_is_success(databases: Databases, tenants: Tenants) -> None:
    owner = Owner(reference=ObjectReference(namespace=tenants.namespace, name="nobody"), uid="1")
    tenant = await tenants.apply()

    result = await databases.delete_database(
        tenant.cleanup().model_copy(update={"reference": owner.reference, "uid": ""})
    )

    assert result.is_done
