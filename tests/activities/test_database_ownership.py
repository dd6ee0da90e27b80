"""Whose a database is: what is not ours is never adopted, changed or deleted; what is ours is found again."""

import pytest
from psycopg.sql import SQL, Identifier, Literal

from clients.kube import KubeClient
from clients.resources import SECRETS
from plattr.database import owner_record
from plattr.errors import OwnedElsewhere
from plattr.manifests.secret import build_database_secret
from tests.fix_postgres import STRANGER, Databases, Superuser, Tenants, catalogue_rows

FOREIGN = {
    "schema-without-a-record": "CREATE SCHEMA {schema}",
    "schema-of-another": "CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS {stranger}",
    "app-role-without-a-record": "CREATE ROLE {app}",
    "app-role-of-another": "CREATE ROLE {app}; COMMENT ON ROLE {app} IS {stranger}",
    "anon-role-of-another": "CREATE ROLE {anon}; COMMENT ON ROLE {anon} IS {stranger}",
    "schema-whose-comment-lies": "CREATE ROLE {app}; COMMENT ON ROLE {app} IS {stranger};"
    " CREATE SCHEMA {schema} AUTHORIZATION {app}; COMMENT ON SCHEMA {schema} IS {ours}",
}


@pytest.mark.every_postgres
@pytest.mark.parametrize("statement", FOREIGN.values(), ids=FOREIGN)
async def test_what_is_not_ours_is_never_adopted_changed_or_deleted(
    statement: str, databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    names = {
        "schema": Identifier(tenant.names.schema_name),
        "app": Identifier(tenant.names.app_role),
        "anon": Identifier(tenant.names.anon_role),
        "stranger": Literal(owner_record(STRANGER)),
        "ours": Literal(owner_record(tenant.target.owner)),
    }
    await superuser.execute(SQL(statement).format(**names))
    before = await catalogue_rows(superuser, tenant)

    with pytest.raises(OwnedElsewhere) as refusal:
        await databases.reconcile_database(tenant.step)
    await databases.delete_database(tenant.cleanup())

    assert before
    assert await catalogue_rows(superuser, tenant) == before
    assert tenant.target.owner.reference.key in str(refusal.value)


async def test_secret_of_another_is_never_adopted(
    databases: Databases, database_kube: KubeClient, tenants: Tenants, superuser: Superuser
) -> None:
    tenant = await tenants.apply()
    body = build_database_secret(tenant.target.model_copy(update={"owner": STRANGER}), {"DB_PASSWORD": "theirs"})
    await database_kube.create(SECRETS, body, tenants.namespace)

    with pytest.raises(OwnedElsewhere):
        await databases.reconcile_database(tenant.step)
    await databases.delete_database(tenant.cleanup())

    assert await tenants.secret(tenant) == {"DB_PASSWORD": "theirs"}
    assert await catalogue_rows(superuser, tenant) == []


@pytest.mark.every_postgres
async def test_object_made_again_finds_its_data(databases: Databases, tenants: Tenants, superuser: Superuser) -> None:
    tenant = await tenants.apply()
    await databases.reconcile_database(tenant.step)
    await tenants.query(tenant, "CREATE TABLE page AS SELECT 1 AS id")
    again = await tenants.recreate(tenant)

    await databases.reconcile_database(again.step)

    assert again.step.uid != tenant.step.uid
    assert await tenants.query(again, "SELECT id FROM page") == [(1,)]
    cursor = await superuser.execute(
        "SELECT obj_description(to_regnamespace(%s)::oid, 'pg_namespace')", [tenant.names.schema_name]
    )
    assert await cursor.fetchall() == [(owner_record(again.target.owner),)]
