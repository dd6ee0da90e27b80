"""SQL texts: what is quoted, whose a comment says something is, and what differs from the spec."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from plattr import sql, sql_access, sql_removal
from plattr.database import (
    DatabaseState,
    Pending,
    Wanted,
    adopted_record,
    anon_record,
    database_environment,
    is_access_due,
    missing_statements,
    owner_record,
    record_beginning,
    recorded_mark,
    refuse_foreign,
)
from plattr.database_removal import (
    Inventory,
    OwnedRole,
    OwnedSchema,
    emptying_statements,
    locking_statements,
    role_statements,
)
from plattr.errors import OwnedElsewhere
from plattr.marks import Estate, Mark
from plattr.naming import RoleName, SchemaName, application_names
from plattr.objects import Kind, ObjectReference, Owner
from plattr.settings import Settings
from plattr.spec import parse_application_spec
from plattr.target import Target

SPEC = parse_application_spec(
    {
        "repository": "https://git.example.test/shop.git",
        "framework": "docker",
        "environment": "production",
        "database": {"enabled": True},
        "storage": {"enabled": False},
        "auth": {"enabled": False},
        "redis": {"enabled": False},
        "search": {"enabled": False},
    }
)
REFERENCE = ObjectReference(namespace="team", name="my-shop")
OWNER = Owner(reference=REFERENCE, uid="11-22")
STRANGER = Owner(reference=ObjectReference(namespace="other", name="my-shop"), uid="33-44")
TARGET = Target(
    owner=OWNER, generation=1, spec=SPEC, names=application_names(REFERENCE, SPEC, base_domain="example.test")
)
SETTINGS = Settings(
    db_admin_url=SecretStr("postgresql://admin@db.example.test/plattr"),
    db_host="db.example.test",
    base_domain="example.test",
    keycloak_url="http://keycloak.example.test",
    keycloak_client_id="plattr",
    keycloak_client_secret=SecretStr("secret"),
)
SETTLED: dict[str, Any] = {
    "admin_is_superuser": False,
    "schema_exists": True,
    "schema_comment": owner_record(OWNER),
    "schema_owner": "prod_my_shop_app",
    "schema_owner_comment": owner_record(OWNER),
    "app_exists": True,
    "app_comment": owner_record(OWNER),
    "app_can_login": True,
    "app_connection_limit": 102,
    "app_has_search_path": True,
    "app_can_become_anon": True,
    "group_exists": True,
    "app_is_in_group": True,
    "app_can_become_group": False,
    "anon_exists": True,
    "anon_comment": anon_record(TARGET),
    "anon_can_login": False,
    "admin_has_app": True,
    "admin_has_anon": True,
}
# Nothing is there but the group role.
ABSENT: dict[str, Any] = {name: (False if isinstance(value, bool) else None) for name, value in SETTLED.items()} | {
    "group_exists": True
}
HOSTILE = "x\"; DROP SCHEMA public; --'"
QUOTED = '"x""; DROP SCHEMA public; --\'"'

references = st.builds(
    ObjectReference,
    kind=st.sampled_from(Kind),
    namespace=st.from_regex(r"[a-z]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True),
    name=st.from_regex(r"[a-z]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True),
)


def texts(statements: list[sql.Statement]) -> list[str]:
    return [statement.as_string() for statement in statements]


def missing(
    state: dict[str, Any], *, has_grant_options: bool = True, pending: Pending | None = None, target: Target = TARGET
) -> list[str]:
    wanted = Wanted(verifier="SCRAM-SHA-256$x", connections=102, has_grant_options=has_grant_options)
    found = DatabaseState(**state)
    due = pending or Pending() if is_access_due(found, target) else None
    return texts(missing_statements(found, target, wanted, due))


ROLE, SCHEMA = RoleName(HOSTILE), SchemaName(HOSTILE)
STATEMENTS = {
    "create-login-role": sql.create_login_role(ROLE, "v", 5),
    "limit-connections": sql.limit_connections(ROLE, 5),
    "join-group": sql.join_group(ROLE, ROLE, has_options=True),
    "create-group-role": sql.create_group_role(ROLE),
    "set-login": sql.set_login(ROLE, allowed=True),
    "set-password": sql.set_password(ROLE, "v"),
    "set-search-path": sql.set_search_path(ROLE, SCHEMA),
    "comment-on-role": sql.comment_on_role(ROLE, "c"),
    "comment-on-schema": sql.comment_on_schema(SCHEMA, "c"),
    "join-admin": sql.join_admin(ROLE, has_options=True),
    "grant-role": sql.grant_role(ROLE, ROLE),
    "create-schema": sql.create_schema(SCHEMA, ROLE),
    "own-schema": sql.own_schema(SCHEMA, ROLE),
    "reload-postgrest": sql.reload_postgrest(HOSTILE),
    "grant-usage": sql_access.grant_usage(SCHEMA, ROLE),
    "revoke-usage": sql_access.revoke_usage(SCHEMA, ROLE),
    "grant-select": sql_access.grant_select(SCHEMA, [HOSTILE, HOSTILE], ROLE),
    "revoke-select": sql_access.revoke_select(SCHEMA, [HOSTILE, HOSTILE], ROLE),
    "grant-select-on-new-tables": sql_access.grant_select_on_new_tables(SCHEMA, ROLE, ROLE),
    "revoke-select-on-new-tables": sql_access.revoke_select_on_new_tables(SCHEMA, ROLE, ROLE),
    "close-new-routines": sql_access.close_new_routines(ROLE),
    "close-routines": sql_access.close_routines(
        SCHEMA, [sql_access.Routine(name=HOSTILE, types=((HOSTILE, HOSTILE), ("pg_catalog", "int4")))]
    ),
    "drop-schema": sql_removal.drop_schema(SCHEMA, cascade=True),
    "drop-role": sql_removal.drop_role(ROLE),
    "drop-owned": sql_removal.drop_owned([ROLE], cascade=False),
    "as-role": sql_removal.as_role(ROLE, sql_removal.drop_schema(SCHEMA, cascade=True)),
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_hostile_name_is_only_a_name(statement: sql.Statement) -> None:
    text = statement.as_string()

    assert QUOTED in text
    assert "DROP SCHEMA public" not in text.replace(QUOTED, "")


@pytest.mark.parametrize(
    "statement",
    [sql.create_login_role(RoleName("r"), HOSTILE, 5), sql.comment_on_role(RoleName("r"), HOSTILE)],
    ids=["verifier", "comment"],
)
def test_hostile_value_is_only_a_value(statement: sql.Statement) -> None:
    assert statement.as_string().endswith("'x\"; DROP SCHEMA public; --'''")


def test_settled_database_needs_nothing() -> None:
    assert missing(SETTLED) == []


def test_absent_database_needs_all_of_it_in_order() -> None:
    record = owner_record(OWNER)

    statements = missing(ABSENT)

    assert statements == [
        "CREATE ROLE \"prod_my_shop_app\" LOGIN CONNECTION LIMIT 102 PASSWORD 'SCRAM-SHA-256$x'",
        'CREATE ROLE "prod_my_shop_anon" NOLOGIN',
        f"COMMENT ON ROLE \"prod_my_shop_app\" IS '{record}'",
        'GRANT "prod_my_shop_app" TO CURRENT_USER WITH INHERIT TRUE, SET TRUE',
        'GRANT "prod_my_shop_anon" TO CURRENT_USER WITH INHERIT TRUE, SET TRUE',
        'ALTER ROLE "prod_my_shop_app" SET search_path TO "prod_my_shop"',
        'GRANT "prod_my_shop_anon" TO "prod_my_shop_app"',
        'CREATE SCHEMA "prod_my_shop" AUTHORIZATION "prod_my_shop_app"',
        f"COMMENT ON SCHEMA \"prod_my_shop\" IS '{record}'",
        'GRANT USAGE ON SCHEMA "prod_my_shop" TO "prod_my_shop_anon"',
        (
            'ALTER DEFAULT PRIVILEGES FOR ROLE "prod_my_shop_app" IN SCHEMA "prod_my_shop"'
            ' GRANT SELECT ON TABLES TO "prod_my_shop_anon"'
        ),
        'ALTER DEFAULT PRIVILEGES FOR ROLE "prod_my_shop_app" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC',
        f"COMMENT ON ROLE \"prod_my_shop_anon\" IS '{anon_record(TARGET)}'",
        'GRANT "plattr_apps" TO "prod_my_shop_app" WITH INHERIT TRUE, SET FALSE',
    ]


CLOSED = TARGET.model_copy(
    update={
        "spec": SPEC.model_copy(update={"database": SPEC.database.model_copy(update={"anon_access": "none"})}),
    }
)


def test_access_that_is_taken_back_leaves_the_functions_alone() -> None:
    statements = missing(SETTLED, pending=Pending(tables=("page",)), target=CLOSED)

    assert statements == [
        'REVOKE USAGE ON SCHEMA "prod_my_shop" FROM "prod_my_shop_anon" CASCADE',
        (
            'ALTER DEFAULT PRIVILEGES FOR ROLE "prod_my_shop_app" IN SCHEMA "prod_my_shop"'
            ' REVOKE SELECT ON TABLES FROM "prod_my_shop_anon"'
        ),
        'REVOKE SELECT ON TABLE "prod_my_shop"."page" FROM "prod_my_shop_anon" CASCADE',
        f"COMMENT ON ROLE \"prod_my_shop_anon\" IS '{anon_record(CLOSED)}'",
    ]


def test_access_that_was_applied_outlives_a_change_of_owner() -> None:
    adopted = adopted_record(anon_record(TARGET.model_copy(update={"owner": STRANGER})), OWNER)

    assert adopted == anon_record(TARGET)
    assert missing(SETTLED | {"anon_comment": adopted}) == []


def test_access_is_recorded_with_its_last_batch() -> None:
    batch = Pending(tables=tuple(f"t{number}" for number in range(sql_access.ACCESS_BATCH)))

    assert not [text for text in missing(SETTLED, pending=batch, target=CLOSED) if text.startswith("COMMENT")]


def test_group_that_the_application_can_act_as_is_granted_anew() -> None:
    statements = missing(SETTLED | {"app_can_become_group": True})

    assert statements[0] == 'GRANT "plattr_apps" TO "prod_my_shop_app" WITH INHERIT TRUE, SET FALSE'
    assert missing(SETTLED | {"app_can_become_group": True}, has_grant_options=False) == []


def test_grant_before_16_holds_what_an_upgrade_would_ask_for() -> None:
    statements = missing(SETTLED | {"admin_has_app": False}, has_grant_options=False)

    assert statements[0] == 'GRANT "prod_my_shop_app" TO CURRENT_USER WITH ADMIN OPTION'


def test_server_without_the_group_role_is_left_without() -> None:
    statements = missing(ABSENT | {"group_exists": False})

    assert not [text for text in statements if "plattr_apps" in text]


def test_superuser_joins_no_role() -> None:
    assert missing(SETTLED | {"admin_is_superuser": True, "admin_has_app": False, "admin_has_anon": False}) == []


def test_connect_is_never_granted_on_the_database() -> None:
    assert not [text for text in missing(ABSENT) if "ON DATABASE" in text]


FOREIGN = {
    "schema": {"schema_owner_comment": None, "schema_comment": owner_record(STRANGER)},
    "schema-without-record": {"schema_owner_comment": None, "schema_comment": None},
    "schema-whose-comment-lies": {"schema_owner_comment": owner_record(STRANGER)},
    "app-role": {"app_comment": owner_record(STRANGER)},
    "app-role-without-record": {"app_comment": "the shop's"},
    "anon-role": {"anon_comment": owner_record(STRANGER)},
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_ours_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OwnedElsewhere):
        refuse_foreign(DatabaseState(**(SETTLED | change)), TARGET)


OURS = {
    "all": {},
    "absent": ABSENT,
    "another-incarnation": {"app_comment": owner_record(Owner(reference=REFERENCE, uid="other"))},
    "schema-whose-comment-the-application-took-off": {"schema_comment": None},
    "schema-with-an-owner-that-has-no-record": {"schema_owner_comment": None},
}


@pytest.mark.parametrize("change", OURS.values(), ids=OURS)
def test_what_is_ours_is_not_refused(change: dict[str, Any]) -> None:
    refuse_foreign(DatabaseState(**(SETTLED | change)), TARGET)


homes = st.tuples(references, st.sampled_from(["c", "c1", 'c", "owner": "']), st.sampled_from(["n", "n1", 'n", "u']))


@given(homes, homes, st.text(max_size=8))
def test_record_begins_like_its_owners_only(
    one: tuple[ObjectReference, str, str], other: tuple[ObjectReference, str, str], uid: str
) -> None:
    owner = Owner(reference=one[0], uid=uid, cluster=one[1], namespace_uid=one[2])
    record = owner_record(owner)
    estate = Estate(reference=other[0], cluster=other[1], namespace_uid=other[2])
    of_any_namespace = estate.model_copy(update={"namespace_uid": None})

    assert record.startswith(record_beginning(estate)) == estate.holds(Mark.of(owner)) == (one == other)
    assert record.startswith(record_beginning(of_any_namespace)) == (one[:2] == other[:2])
    assert recorded_mark(record) == Mark.of(owner)


@pytest.mark.parametrize(
    "comment",
    [None, "", "plattr:", "plattr:{", "plattr:[]", 'plattr:{"owner": 7}', json.dumps({"owner": REFERENCE.key})],
    ids=["none", "empty", "prefix", "cut", "list", "number", "no-prefix"],
)
def test_comment_of_another_shape_names_nobody(comment: str | None) -> None:
    assert recorded_mark(comment) is None


@pytest.mark.parametrize("password", ["ab12", "p@ss/w:rd%41 '\\?#&="], ids=["hex", "hostile"])
@pytest.mark.parametrize("host", ["db.example.test", "fd00::1"])
def test_libpq_reads_back_what_the_url_says(host: str, password: str) -> None:
    values = database_environment(TARGET, SETTINGS.model_copy(update={"db_host": host}), password, "c")

    assert conninfo_to_dict(values["DATABASE_URL"]) == {
        "user": "prod_my_shop_app",
        "password": password,
        "host": host,
        "port": "5432",
        "dbname": "plattr",
    }


def test_url_says_how_to_trust_the_server() -> None:
    values = database_environment(TARGET, SETTINGS.model_copy(update={"db_sslmode": "verify-full"}), "x", "c")

    assert conninfo_to_dict(values["DATABASE_URL"])["sslmode"] == "verify-full"


def inventory(*, admin_has_it: bool = True, can_login: bool = True) -> Inventory:
    record = owner_record(OWNER)
    old = owner_record(Owner(reference=REFERENCE, uid="old"))
    app = OwnedRole(oid=1, name="app", record=record, can_login=can_login, admin_has_it=admin_has_it)
    former = OwnedRole(oid=2, name="former", record=old, can_login=False, admin_has_it=True)
    schemas = (OwnedSchema(oid=3, name="s", record=record), OwnedSchema(oid=4, name="former", record=old))
    return Inventory(schemas=schemas, roles=(app, former))


def test_removal_drops_schemas_before_roles_and_gives_nothing_to_the_admin() -> None:
    assert texts([*emptying_statements(inventory(), occupied={4}), *role_statements(inventory())]) == [
        'DROP SCHEMA IF EXISTS "s" RESTRICT',
        'DROP SCHEMA IF EXISTS "former" CASCADE',
        'DROP OWNED BY "app", "former" RESTRICT',
        'DROP ROLE IF EXISTS "app"',
        'DROP ROLE IF EXISTS "former"',
    ]


def test_only_roles_that_log_in_are_locked_out() -> None:
    assert texts(locking_statements(inventory(), has_grant_options=True)) == ['ALTER ROLE "app" NOLOGIN']


def test_locked_out_roles_need_nothing() -> None:
    assert locking_statements(inventory(can_login=False), has_grant_options=True) == []


def test_living_incarnation_is_left_out_of_the_inventory() -> None:
    left = inventory().without(OWNER.uid)

    assert (left.schema_names, left.role_names, left.role_ids) == (["former"], ["former"], [2])
