"""What the audit finds of rights in PostgreSQL that Plattr did not give."""

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from cli.auditing.inventory import AuditProblem
from cli.auditing.rights import findings
from clients.postgres_transaction import GRANT_OPTIONS_VERSION
from stack.endpoints import Endpoints, environment
from tests.fix_postgres import Databases, Superuser, Tenants

FUNCTION = "CREATE FUNCTION public.audited(text) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"


@pytest.mark.attack
@pytest.mark.every_postgres
async def test_what_the_admin_owns_memberships_attributes_and_open_databases_are_found(
    databases: Databases,
    tenants: Tenants,
    superuser: Superuser,
    database_endpoints: Endpoints,
    open_postgres: None,
) -> None:
    one, two = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(one.step)
    await databases.reconcile_database(two.step)
    url = environment(database_endpoints, "worker")["DB_ADMIN_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        before = [finding for finding in findings(connection) if finding.problem is not AuditProblem.OPEN]
        names = {"one": Identifier(one.names.app_role), "two": Identifier(two.names.app_role)}
        for statement in (
            "GRANT {one} TO {two}",
            "ALTER ROLE {one} CREATEROLE BYPASSRLS",
            FUNCTION,
            "ALTER FUNCTION public.audited OWNER TO provisioner",
        ):
            await superuser.execute(SQL(statement).format(**names))

        found = findings(connection)

    await superuser.execute("DROP FUNCTION public.audited")
    key = one.target.owner.reference.key
    assert before == []
    assert {(each.problem, str(each.thing), each.owner, each.detail) for each in found} == {
        (
            AuditProblem.ADMINS,
            "object plattr/function public.audited(pg_catalog.text)",
            "",
            "owned by role provisioner",
        ),
        (
            AuditProblem.MEMBER,
            f"role {two.names.app_role}",
            two.target.owner.reference.key,
            f"of role {one.names.app_role}",
        ),
        (AuditProblem.POWER, f"role {one.names.app_role}", key, "CREATEROLE, BYPASSRLS"),
        (AuditProblem.OPEN, "database postgres", "", "CONNECT is PUBLIC's"),
    }


@pytest.mark.attack
@pytest.mark.every_postgres
async def test_a_lifted_limit_and_the_right_to_act_as_the_group_are_found(
    databases: Databases, tenants: Tenants, superuser: Superuser, database_endpoints: Endpoints
) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    role = Identifier(tenant.names.app_role)
    await superuser.execute(SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(role))
    has_options = superuser.info.server_version >= GRANT_OPTIONS_VERSION
    if has_options:
        await superuser.execute(SQL("GRANT plattr_apps TO {} WITH SET TRUE").format(role))

    with psycopg.connect(environment(database_endpoints, "worker")["DB_ADMIN_URL"], autocommit=True) as connection:
        found = [each for each in findings(connection) if each.owner == tenant.target.owner.reference.key]

    expected = [(AuditProblem.MEMBER, "of role plattr_apps WITH SET")] if has_options else []
    assert [(each.problem, each.detail) for each in found] == [*expected, (AuditProblem.POWER, "no CONNECTION LIMIT")]
