"""anon, the public API: what it may do by default, what the owner decides, and what the spec's field changes."""

from typing import Any

import pytest
from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Identifier, Literal

from plattr.database import owner_record
from plattr.steps import StepResult
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants

pytestmark = pytest.mark.attack

DEFINER = "CREATE FUNCTION {name}() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*)::int FROM diary'"


async def as_anon(tenants: Tenants, tenant: Tenant, statement: str) -> object:
    """Return what anon gets, as PostgREST asks for it."""
    [(value,)] = await tenants.query(tenant, f"SET ROLE {tenant.names.anon_role}", statement)
    return value


async def with_diary(tenants: Tenants, databases: Databases, **database: Any) -> Tenant:
    """Return an application whose diary anon may not read."""
    tenant = await tenants.apply(**database)
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE diary (id int)", f"REVOKE SELECT ON diary FROM {tenant.names.anon_role}")
    return tenant


def message_of(result: StepResult) -> str:
    [update] = result.updates
    return update.message


@pytest.mark.every_postgres
@pytest.mark.parametrize("kind", ["FUNCTION", "PROCEDURE"])
async def test_anon_calls_no_function_that_its_owner_did_not_open(
    kind: str, databases: Databases, tenants: Tenants
) -> None:
    tenant = await with_diary(tenants, databases)
    schema, anon = tenant.names.schema_name, tenant.names.anon_role
    make, call = DEFINER.format(name="peek"), f"SELECT {schema}.peek()"
    if kind == "PROCEDURE":
        make, call = "CREATE PROCEDURE peek(INOUT found int) LANGUAGE sql AS 'SELECT 1'", f"CALL {schema}.peek(0)"
    await tenants.query(tenant, make)

    with pytest.raises(InsufficientPrivilege):
        await as_anon(tenants, tenant, call)
    result = await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, f"GRANT EXECUTE ON {kind} peek TO {anon}")
    opened = await databases.reconcile_database(tenant.step)

    assert "peek" in message_of(result)
    assert "peek" not in message_of(opened)
    assert await as_anon(tenants, tenant, call) is not None


@pytest.mark.every_postgres
async def test_functions_that_exist_are_closed_once_and_listed(
    databases: Databases, tenants: Tenants, superuser: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.database.ACCESS_BATCH", 2)
    monkeypatch.setattr("plattr.database.ACCESS_BATCH", 2)
    tenant = await with_diary(tenants, databases)
    names = tenant.names
    # A schema that was restored, or made by hand: its functions are everybody's, and nothing is recorded.
    await tenants.query(
        tenant,
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        'CREATE TYPE "odd, type" AS (id int)',
        DEFINER.format(name="peek"),
        "CREATE FUNCTION peek(int, text[], VARIADIC numeric[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        """CREATE FUNCTION "x() FROM PUBLIC; --"("odd, type") RETURNS int LANGUAGE sql AS 'SELECT 1'""",
        "CREATE PROCEDURE act(INOUT done int) LANGUAGE sql AS 'SELECT 1'",
        "CREATE AGGREGATE top(int) (sfunc = int4larger, stype = int)",
    )
    await superuser.execute(
        SQL("COMMENT ON ROLE {} IS {}").format(Identifier(names.anon_role), Literal(owner_record(tenant.target.owner)))
    )

    result = await databases.reconcile_database(tenant.step)
    left = await open_routines(superuser, tenant)
    await tenants.query(tenant, "GRANT EXECUTE ON FUNCTION peek() TO PUBLIC")
    await databases.reconcile_database(tenant.step)

    assert left == []
    assert "5 of its functions (act, peek, top" in message_of(result)
    assert "FROM PUBLIC" not in message_of(result)
    assert await open_routines(superuser, tenant) == ["peek"]
    assert await as_anon(tenants, tenant, f"SELECT {names.schema_name}.peek()") == 0


async def open_routines(superuser: Superuser, tenant: Tenant) -> list[str]:
    cursor = await superuser.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace"
        " AND has_function_privilege('public', oid, 'EXECUTE')",
        [tenant.names.schema_name],
    )
    return [str(row[0]) for row in await cursor.fetchall()]


TAKEN_AWAY = {
    "one-table": ("REVOKE SELECT ON page FROM {anon}", "SELECT id FROM {schema}.page"),
    "the-schema": ("REVOKE USAGE ON SCHEMA {schema} FROM {anon}", "SELECT id FROM {schema}.page"),
    "what-comes": (
        """
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} REVOKE SELECT ON TABLES FROM {anon};
        CREATE TABLE later AS SELECT 1 AS id
        """,
        "SELECT id FROM {schema}.later",
    ),
}


@pytest.mark.every_postgres
@pytest.mark.parametrize(("revoke", "read"), TAKEN_AWAY.values(), ids=TAKEN_AWAY)
async def test_what_the_owner_took_from_anon_stays_away(
    revoke: str, read: str, databases: Databases, tenants: Tenants
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    words = {"schema": tenant.names.schema_name, "anon": tenant.names.anon_role}
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id", revoke.format(**words))

    await databases.reconcile_database(tenant.step)
    # As a new object of the name finds it, too.
    renewed = await tenants.recreate(tenant)
    await databases.reconcile_database(renewed.step)

    with pytest.raises(InsufficientPrivilege):
        await as_anon(tenants, tenant, read.format(**words))


@pytest.mark.every_postgres
async def test_access_follows_the_spec_when_it_changes(
    databases: Databases, tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.database.ACCESS_BATCH", 2)
    monkeypatch.setattr("plattr.database.ACCESS_BATCH", 2)
    tenant = await tenants.apply()
    schema = tenant.names.schema_name
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, *(f"CREATE TABLE t{number} AS SELECT 1 AS id" for number in range(5)))
    reads = f"SELECT id FROM {schema}.t4"
    before = await as_anon(tenants, tenant, reads)

    closed = await tenants.apply(tenant.names.stem, anonAccess="none")
    await databases.reconcile_database(closed.step)
    await tenants.query(tenant, "CREATE TABLE later AS SELECT 1 AS id")
    with pytest.raises(InsufficientPrivilege):
        await as_anon(tenants, tenant, reads)
    left = await tenants.query(
        tenant,
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
        f" AND has_table_privilege('{tenant.names.anon_role}', oid, 'SELECT')",
    )
    opened = await tenants.apply(tenant.names.stem, anonAccess="read")
    await databases.reconcile_database(opened.step)

    assert (before, left) == (1, [])
    assert await as_anon(tenants, tenant, f"SELECT id FROM {schema}.later") == 1
    assert await as_anon(tenants, tenant, reads) == 1


async def test_none_from_the_beginning_grants_nothing(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply(anonAccess="none")
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")

    with pytest.raises(InsufficientPrivilege):
        await as_anon(tenants, tenant, f"SELECT id FROM {tenant.names.schema_name}.page")


@pytest.mark.every_postgres
async def test_record_of_what_was_applied_is_not_the_tenants_to_write(databases: Databases, tenants: Tenants) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)

    with pytest.raises(InsufficientPrivilege):
        await tenants.query(tenant, f"COMMENT ON ROLE {tenant.names.anon_role} IS NULL")


async def test_table_of_another_application_is_not_given_to_anon(databases: Databases, tenants: Tenants) -> None:
    tenant, guest = await tenants.apply(), await tenants.apply()
    schema = tenant.names.schema_name
    await databases.reconcile_database(guest.step)
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {guest.names.app_role}")
    closed = await tenants.apply(tenant.names.stem, anonAccess="none")
    await databases.reconcile_database(closed.step)
    await tenants.query(guest, f"CREATE TABLE {schema}.guests AS SELECT 1 AS id")

    opened = await tenants.apply(tenant.names.stem, anonAccess="read")
    await databases.reconcile_database(opened.step)

    with pytest.raises(InsufficientPrivilege):
        await as_anon(tenants, tenant, f"SELECT id FROM {schema}.guests")
