"""How many connections an application may open, and what a full role or server says of its password."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from psycopg import AsyncConnection, OperationalError
from psycopg.errors import InsufficientPrivilege
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from clients.kube import KubeClient
from clients.postgres import PostgresClient
from plattr.connections import SPARE
from plattr.errors import BackendRefused, BackendUnavailable
from plattr.settings import Settings
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants, activities_with

pytestmark = pytest.mark.attack

Session = AsyncConnection[TupleRow]
# The least that the settings allow: four for the pods.
FEW = 4 + SPARE


@pytest.fixture
def narrow(database_kube: KubeClient, postgres: PostgresClient, database_settings: Settings) -> Databases:
    """The step on a platform that gives its applications few connections."""
    return activities_with(database_kube, postgres, database_settings.model_copy(update={"db_connections_max": 4}))


@asynccontextmanager
async def crowd(tenants: Tenants, tenant: Tenant) -> AsyncIterator[list[Session]]:
    """Open sessions until the server lets no more in."""
    async with AsyncExitStack() as stack:
        sessions: list[Session] = []
        while True:
            try:
                session = await tenants.session(tenant)
            except OperationalError:
                yield sessions
                return
            sessions.append(await stack.enter_async_context(session))


async def verifier(superuser: Superuser, tenant: Tenant) -> str:
    """Return the password as the server keeps it; one that is set again has another salt."""
    cursor = await superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [tenant.names.app_role])
    [(kept,)] = await cursor.fetchall()
    return str(kept)


@pytest.mark.every_postgres
async def test_application_opens_no_more_than_its_share(narrow: Databases, tenants: Tenants) -> None:
    greedy, other = await tenants.apply(), await tenants.apply()
    await narrow.reconcile_database(greedy.step)
    await narrow.reconcile_database(other.step)

    async with crowd(tenants, greedy) as sessions:
        assert len(sessions) == FEW
        assert await tenants.query(other, "SELECT 1") == [(1,)]


@pytest.mark.every_postgres
async def test_application_cannot_raise_its_share(narrow: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    await narrow.reconcile_database(tenant.step)

    with pytest.raises(InsufficientPrivilege):
        await tenants.query(tenant, f"ALTER ROLE {tenant.names.app_role} CONNECTION LIMIT -1")


@pytest.mark.every_postgres
async def test_full_role_is_said_and_keeps_its_password(
    narrow: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await narrow.reconcile_database(tenant.step)
    before = await verifier(superuser, tenant)

    async with crowd(tenants, tenant):
        result = await narrow.reconcile_database(tenant.step)

    [update] = result.updates
    assert update.status == "True"
    assert f"all {FEW} connections of role '{tenant.names.app_role}' are in use" in update.message
    assert await verifier(superuser, tenant) == before


@pytest.mark.every_postgres
async def test_password_changed_behind_a_full_role_is_mended_all_the_same(
    narrow: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await narrow.reconcile_database(tenant.step)

    async with crowd(tenants, tenant):
        await superuser.execute(SQL("ALTER ROLE {} PASSWORD 'other'").format(Identifier(tenant.names.app_role)))
        await narrow.reconcile_database(tenant.step)

    assert await tenants.query(tenant, "SELECT 1") == [(1,)]


async def test_full_server_keeps_plattr_in_and_every_password(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    greedy, other = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(greedy.step)
    await databases.reconcile_database(other.step)
    # As many applications together would.
    await superuser.execute(SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(Identifier(greedy.names.app_role)))
    before = await verifier(superuser, other)
    newcomer = await tenants.apply()

    async with crowd(tenants, greedy) as sessions:
        with pytest.raises(BackendUnavailable) as failure:
            await databases.reconcile_database(other.step)
        with pytest.raises(BackendUnavailable):
            await databases.reconcile_database(newcomer.step)
        await databases.delete_database(newcomer.cleanup())

    assert len(sessions) > 100
    assert "the password is right" in str(failure.value)
    assert "max_connections" in str(failure.value)
    assert await verifier(superuser, other) == before


async def test_application_that_may_not_connect_keeps_its_password(
    databases: Databases, tenants: Tenants, superuser: Superuser, database_settings: Settings
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    before = await verifier(superuser, tenant)
    names = {"database": Identifier(database_settings.db_name), "group": Identifier("plattr_apps")}
    await superuser.execute(SQL("REVOKE CONNECT ON DATABASE {database} FROM {group}").format(**names))
    try:
        with pytest.raises(BackendRefused) as refusal:
            await databases.reconcile_database(tenant.step)
    finally:
        await superuser.execute(SQL("GRANT CONNECT ON DATABASE {database} TO {group}").format(**names))

    assert "CONNECT" in str(refusal.value)
    assert await verifier(superuser, tenant) == before


@pytest.mark.every_postgres
async def test_changed_scaling_changes_the_share(databases: Databases, tenants: Tenants, superuser: Superuser) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    small = await tenants.scale(tenant, minimum=1, maximum=2)

    await databases.reconcile_database(small.step)

    cursor = await superuser.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", [tenant.names.app_role])
    # Three pods while two replicas roll, eleven each.
    assert await cursor.fetchall() == [(3 * 11 + SPARE,)]


@pytest.mark.every_postgres
async def test_applications_share_a_right_and_no_role_to_act_as(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    if superuser.info.server_version < 160000:
        # The one cannot be had without the other there: docs/installing.md.
        return
    # As a grant by hand leaves it.
    await superuser.execute(
        SQL("GRANT plattr_apps TO {} WITH SET TRUE GRANTED BY provisioner").format(Identifier(tenant.names.app_role))
    )

    await databases.reconcile_database(tenant.step)

    with pytest.raises(InsufficientPrivilege):
        await tenants.query(tenant, "SET ROLE plattr_apps", "SELECT lo_create(0)")
