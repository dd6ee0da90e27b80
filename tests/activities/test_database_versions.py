"""The major versions of PostgreSQL: which ones the marked tests ran on, and what an upgrade of the server leaves."""

import subprocess
from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from clients.kube import KubeClient
from clients.postgres import PostgresClient
from plattr.settings import Settings
from stack.endpoints import Endpoints
from stack.platform import Platform
from stack.services.postgres import ADMIN
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants, activities_with, catalogue_rows, drop_everything
from tests.fix_postgres_versions import OTHER_VERSIONS


@pytest.fixture
async def newest(platform: Platform) -> AsyncIterator[Superuser]:
    """The superuser of the platform's own PostgreSQL, whichever one the test is about."""
    async with await AsyncConnection.connect(platform.endpoints.database_superuser_url, autocommit=True) as connection:
        yield connection


@pytest.mark.every_postgres
async def test_the_server_is_of_the_version_that_is_meant_and_its_admin_no_superuser(
    database_settings: Settings, superuser: Superuser, request: pytest.FixtureRequest
) -> None:
    assert database_settings.db_admin_url is not None
    rows: list[TupleRow] = []
    async with await AsyncConnection.connect(database_settings.db_admin_url.get_secret_value()) as admin:
        for connection in (superuser, admin):
            rows += await (
                await connection.execute(
                    "SELECT 'postgres-' || current_setting('server_version_num')::int / 10000, rolsuper, rolcreaterole"
                    " FROM pg_roles WHERE rolname = current_user"
                )
            ).fetchall()

    version = request.node.callspec.id
    assert rows == [(version, True, True), (version, False, True)]


@pytest.mark.parametrize("database_endpoints", ["postgres-15"], indirect=True)
async def test_admin_gets_back_before_16_what_an_upgrade_would_ask_for(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    roles = [tenant.names.app_role, tenant.names.anon_role]
    for role in roles:
        await superuser.execute(SQL("REVOKE ADMIN OPTION FOR {} FROM {}").format(Identifier(role), Identifier(ADMIN)))

    await databases.reconcile_database(tenant.step)

    question = "SELECT pg_has_role(%s, role, 'MEMBER WITH ADMIN OPTION') FROM unnest(%s::name[]) AS role"
    assert await (await superuser.execute(question, [ADMIN, roles])).fetchall() == [(True,), (True,)]


@pytest.mark.parametrize("database_endpoints", OTHER_VERSIONS, indirect=True)
async def test_database_of_an_older_server_lives_on_and_goes_after_an_upgrade(
    database_kube: KubeClient,
    database_endpoints: Endpoints,
    databases: Databases,
    tenants: Tenants,
    platform: Platform,
    newest: Superuser,
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")
    password = (await tenants.secret(tenant))["DB_PASSWORD"]
    settings = Settings.from_mapping(platform.environment())
    client = await PostgresClient.connect(settings)
    upgraded = activities_with(database_kube, client, settings)

    try:
        move(tenant, database_endpoints, platform.endpoints)
        await upgraded.reconcile_database(tenant.step)
        secret = await tenants.secret(tenant)
        moved = await tenants.query(tenant, "SELECT id FROM page")
        await tenants.delete_secret(tenant)
        await upgraded.reconcile_database(tenant.step)
        still = await tenants.query(tenant, "SELECT id FROM page")
        await upgraded.delete_database(tenant.cleanup())

        assert (secret["DB_PASSWORD"], secret["DB_PORT"]) == (password, str(settings.db_port))
        assert moved == still == [(1,)]
        assert await catalogue_rows(newest, tenant) == []
    finally:
        await client.close()
        await drop_everything(newest, tenant.names)


def move(tenant: Tenant, old: Endpoints, new: Endpoints) -> None:
    """Take a database to another server as pg_upgrade does: by the new server's dump, as superuser."""
    programs = (new.bin_dir / "pg_dump").resolve().parent
    url = old.database_superuser_url
    names = tenant.names
    roles = run(str(programs / "pg_dumpall"), "--roles-only", "-d", url)
    # A server that is upgraded has no other roles yet; this one has the admin and the group already.
    own = [line for line in roles.splitlines() if names.app_role in line or names.anon_role in line]
    schema = run(str(programs / "pg_dump"), "-n", names.schema_name, "-d", url)
    psql = (str(programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", new.database_superuser_url)
    run(*psql, text="\n".join(own) + "\n" + schema)


def run(*command: str, text: str = "") -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60).stdout
