"""Two applications of one tenant, as `one` and `two`, and what they do with each other's database."""

from typing import Any

from tests.fix_postgres import Databases, Tenant, Tenants


async def two_of(databases: Databases, tenants: Tenants) -> tuple[Tenant, Tenant]:
    """Return two applications of one tenant, the second's schema open to the first."""
    one, two = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(one.step)
    await databases.reconcile_database(two.step)
    await run(tenants, two, "GRANT USAGE, CREATE ON SCHEMA {two} TO {one_app}", one=one, two=two)
    await run(tenants, one, "GRANT USAGE, CREATE ON SCHEMA {one} TO {two_app}", one=one, two=two)
    return one, two


def filled(statement: str, *, one: Tenant, two: Tenant) -> str:
    return statement.format(
        one=one.names.schema_name,
        two=two.names.schema_name,
        one_app=one.names.app_role,
        two_app=two.names.app_role,
    )


async def run(tenants: Tenants, tenant: Tenant, *statements: str, one: Tenant, two: Tenant) -> list[Any]:
    return list(await tenants.query(tenant, *(filled(statement, one=one, two=two) for statement in statements)))
