"""What a tenant cannot do by the end of an application: get at the admin, take or hold what is another's."""

from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.errors import AdminShutdown
from psycopg.sql import SQL, Identifier

from clients.kube import KubeClient
from plattr.errors import HeldByDependents
from plattr.steps import CleanupStepInput
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants, events_of, left_of
from tests.rivals import filled, run, two_of

pytestmark = pytest.mark.attack

ADMIN = "provisioner"


async def owned_by_admin(superuser: Superuser) -> list[Any]:
    cursor = await superuser.execute(
        """
        SELECT dbid, classid::regclass::text, objid FROM pg_shdepend
        WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o'
            AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
            -- Plattr's own.
            AND objid IS DISTINCT FROM (SELECT oid FROM pg_namespace WHERE nspname = 'plattr_private')
            AND objid NOT IN (
                SELECT objid FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass
                    AND refobjid = (SELECT oid FROM pg_namespace WHERE nspname = 'plattr_private')
            )
        """,
        [ADMIN],
    )
    return await cursor.fetchall()


async def kinds_of(superuser: Superuser, tenant: Tenant) -> set[str]:
    """Return the names of what a tenant's app role owns."""
    cursor = await superuser.execute(
        "SELECT relname::text FROM pg_class WHERE relowner = %(role)s::regrole AND relkind IN ('r', 'v', 'm')"
        " UNION SELECT proname::text FROM pg_proc WHERE proowner = %(role)s::regrole",
        {"role": tenant.names.app_role},
    )
    return {row[0] for row in await cursor.fetchall()}


def cascading(tenant: Tenant) -> CleanupStepInput:
    return tenant.cleanup().model_copy(update={"cascade": True})


# As `one`, in the schema of `two`, which let it.
LEFT_BEHIND = (
    "CREATE FUNCTION {two}.run(text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN EXECUTE $1; END $$",
    "CREATE PROCEDURE {two}.do_it(IN a text, OUT b text) LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN END $$",
    "CREATE PROCEDURE {two}.do_it(IN a text, IN b text) LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN END $$",
    "CREATE VIEW {two}.all_roles AS SELECT * FROM pg_roles",
    "CREATE MATERIALIZED VIEW {two}.few AS SELECT * FROM {two}.all_roles",
    "CREATE TABLE {two}.parent (a int PRIMARY KEY) PARTITION BY RANGE (a)",
    "CREATE TABLE {two}.child PARTITION OF {two}.parent FOR VALUES FROM (0) TO (9)",
    "CREATE RULE r AS ON INSERT TO {two}.parent DO INSTEAD SELECT 1",
    "CREATE TABLE {two}.serial (a serial, b int GENERATED ALWAYS AS IDENTITY REFERENCES {two}.parent)",
    "CREATE STATISTICS {two}.stats ON a, b FROM {two}.serial",
    "CREATE TYPE {two}.mood AS ENUM ('good')",
    "CREATE DOMAIN {two}.whole AS int CHECK (VALUE > 0)",
    "CREATE TYPE {two}.span AS RANGE (subtype = int)",
    "CREATE FUNCTION {two}.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR {two}.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = {two}.same)",
    "CREATE AGGREGATE {two}.total(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE AGGREGATE {two}.every(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0')",
    "CREATE AGGREGATE {two}.middle(int ORDER BY int) (SFUNC = int4pl, STYPE = int)",
    "CREATE AGGREGATE {two}.place(int ORDER BY int) (SFUNC = int4pl, STYPE = int, HYPOTHETICAL)",
    "CREATE TYPE {two}.pair AS (a int)",
    "CREATE FUNCTION {two}.as_text({two}.pair) RETURNS text LANGUAGE sql AS 'SELECT null::text'",
    "CREATE CAST ({two}.pair AS text) WITH FUNCTION {two}.as_text({two}.pair)",
    "CREATE COLLATION {two}.odd (provider = libc, locale = 'C')",
    "CREATE TEXT SEARCH CONFIGURATION {two}.words (COPY = simple)",
    "CREATE SEQUENCE {two}.counter",
    # Each needs the other.
    "CREATE TABLE {two}.ring (a int)",
    "CREATE FUNCTION {two}.turn({two}.ring) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE {two}.ring ADD CHECK ({two}.turn(ring) > 0)",
    'CREATE TABLE {two}."a""; DROP ROLE x; %s --" ("b\'" int)',
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {two} GRANT ALL ON TABLES TO {two_app}",
    "SELECT lo_create(0)",
)

# As `two`, of what `one` has: what the message of a deletion that is held has to name.
DEPENDING = {
    "CREATE VIEW {two}.seen AS SELECT id FROM {one}.page": "view {two}.seen",
    "CREATE MATERIALIZED VIEW {two}.kept AS SELECT id FROM {one}.page": "materialized view {two}.kept",
    "CREATE TABLE {two}.note (id int CONSTRAINT fk REFERENCES {one}.page)": "table constraint fk on {two}.note",
    "CREATE FUNCTION {two}.title({one}.page) RETURNS int LANGUAGE sql AS 'SELECT 1'": (
        "function {two}.title({one}.page)"
    ),
    "CREATE TABLE {two}.diary (feeling {one}.mood)": "table column {two}.diary.feeling",
    "CREATE TABLE {two}.stamped (id int DEFAULT {one}.now_as_int())": ("default value for {two}.stamped.id"),
    "CREATE TABLE {two}.counted (id int DEFAULT nextval('{one}.counter'))": ("default value for {two}.counted.id"),
    "CREATE DOMAIN {two}.small AS {one}.whole": "type {two}.small",
    "CREATE TABLE {two}.guarded (id int); ALTER TABLE {two}.guarded ENABLE ROW LEVEL SECURITY;"
    " CREATE POLICY mine ON {two}.guarded USING ({one}.now_as_int() > 0)": "policy mine on {two}.guarded",
    "CREATE TABLE {two}.ruled (id int); CREATE RULE away AS ON INSERT TO {two}.ruled DO ALSO DELETE FROM {one}.page": (
        "rule away on {two}.ruled"
    ),
    "CREATE TABLE {two}.fired (id int); CREATE TRIGGER bell BEFORE INSERT ON {two}.fired"
    " FOR EACH ROW EXECUTE FUNCTION {one}.ring()": "trigger bell on {two}.fired",
    "CREATE TABLE {two}.sorted (id int); CREATE INDEX by_it ON {two}.sorted ({one}.plus(id))": "index {two}.by_it",
    "CREATE FUNCTION {two}.body() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM {one}.page; END": (
        "function {two}.body()"
    ),
    # What it put into the schema that goes is its own all the same.
    "CREATE TABLE {one}.guest (id int)": "table {one}.guest",
    'CREATE VIEW {two}."[x](http://evil.test)\n**b**" AS SELECT id FROM {one}.page': (
        "view {two}.?x??http???evil?test????b??"
    ),
}


@pytest.mark.every_postgres
async def test_nothing_of_a_tenant_becomes_the_admins(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    before = await owned_by_admin(superuser)
    await run(tenants, one, *LEFT_BEHIND, one=one, two=two)

    await databases.delete_database(one.cleanup())

    assert await left_of(superuser, tenants, one) == set()
    assert await owned_by_admin(superuser) == before
    assert await kinds_of(superuser, two) == set()
    left = await superuser.execute(
        "SELECT classid::regclass, objid FROM pg_depend WHERE refobjid = %s::regnamespace AND deptype = 'n'",
        [two.names.schema_name],
    )
    assert await left.fetchall() == []


async def make_things(tenants: Tenants, one: Tenant, two: Tenant) -> None:
    """Give `one` what others can depend on, and let `two` at it."""
    await run(
        tenants,
        one,
        "CREATE TABLE {one}.page (id int PRIMARY KEY)",
        "CREATE TYPE {one}.mood AS ENUM ('good')",
        "CREATE DOMAIN {one}.whole AS int",
        "CREATE SEQUENCE {one}.counter",
        "CREATE FUNCTION {one}.now_as_int() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION {one}.plus(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
        "CREATE FUNCTION {one}.ring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "GRANT ALL ON ALL TABLES IN SCHEMA {one} TO {two_app}",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA {one} TO {two_app}",
        "GRANT ALL ON ALL FUNCTIONS IN SCHEMA {one} TO {two_app}",
        one=one,
        two=two,
    )


@pytest.mark.every_postgres
async def test_what_another_application_made_of_it_holds_the_deletion_until_an_operator_says_so(
    databases: Databases, database_kube: KubeClient, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    await make_things(tenants, one, two)
    wanted = set()
    for statement, name in DEPENDING.items():
        await run(tenants, two, statement, one=one, two=two)
        wanted.add(filled(name, one=one, two=two))
    before = await kinds_of(superuser, one)
    named = await databases.dropping(one.cleanup()).dependents()

    with pytest.raises(HeldByDependents) as held:
        await databases.delete_database(one.cleanup())

    assert {each.name for each in named} == wanted
    assert {each.holder for each in named} == {two.target.owner.reference.key}
    assert two.target.owner.reference.key in str(held.value)
    assert not set("[]*`<>|\n") & set(str(held.value))
    assert await kinds_of(superuser, one) == before
    await databases.delete_database(cascading(one))
    assert await left_of(superuser, tenants, one) == set()
    assert "seen" not in await kinds_of(superuser, two)
    assert "note" in await kinds_of(superuser, two)
    assert one.target.owner.reference.key in (await events_of(database_kube, two))["DependentsRemoved"]


@pytest.mark.every_postgres
async def test_what_others_make_while_it_goes_holds_the_rest(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    await make_things(tenants, one, two)
    dropping = databases.dropping(one.cleanup())
    await dropping.lock_out()
    nobody = await dropping.dependents()
    await run(tenants, two, "CREATE VIEW {two}.late AS SELECT id FROM {one}.page", one=one, two=two)

    with pytest.raises(HeldByDependents):
        await dropping.run()

    assert nobody == []
    assert "page" in await kinds_of(superuser, one)
    assert await kinds_of(superuser, two) == {"late"}


async def session_in_postgres(tenants: Tenants, tenant: Tenant) -> AsyncConnection[Any]:
    secret = await tenants.secret(tenant)
    url = make_conninfo(secret["DATABASE_URL"], dbname="postgres")
    return await AsyncConnection.connect(url, autocommit=True)


@pytest.mark.every_postgres
async def test_grants_by_others_in_whichever_database_hold_no_deletion_up(
    databases: Databases, tenants: Tenants, superuser: Superuser, open_postgres: None
) -> None:
    one, two = await two_of(databases, tenants)
    three = await tenants.apply()
    await databases.reconcile_database(three.step)
    names = {"one_anon": one.names.anon_role, "three_app": three.names.app_role}
    statements = (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {one_app}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {two} GRANT ALL ON FUNCTIONS TO {one_app}, one_anon",
        "CREATE TABLE {two}.t (id int, b int); CREATE SEQUENCE {two}.s; CREATE TYPE {two}.e AS ENUM ()",
        "CREATE FUNCTION {two}.f(int, OUT int) LANGUAGE sql AS 'SELECT 1'",
        "CREATE POLICY alone ON {two}.t TO {one_app}",
        "CREATE POLICY shared ON {two}.t TO {one_app}, three_app",
        "GRANT USAGE ON SCHEMA {two} TO three_app WITH GRANT OPTION",
        "GRANT SELECT ON {two}.t TO three_app WITH GRANT OPTION",
        "GRANT UPDATE (b) ON {two}.t TO three_app WITH GRANT OPTION",
        "GRANT ALL ON SEQUENCE {two}.s TO three_app WITH GRANT OPTION",
        "GRANT ALL ON TYPE {two}.e TO three_app WITH GRANT OPTION",
        "GRANT ALL ON FUNCTION {two}.f TO three_app WITH GRANT OPTION",
    )
    for statement in statements:
        wanted = statement.replace("one_anon", names["one_anon"]).replace("three_app", names["three_app"])
        await run(tenants, two, wanted, one=one, two=two)
    for granted in (
        "USAGE ON SCHEMA {two}",
        "SELECT ON {two}.t",
        "UPDATE (b) ON {two}.t",
        "ALL ON SEQUENCE {two}.s",
        "ALL ON TYPE {two}.e",
        "ALL ON FUNCTION {two}.f",
    ):
        await run(tenants, three, f"GRANT {granted} TO {{one_app}} WITH GRANT OPTION", one=one, two=two)
        await run(tenants, one, f"GRANT {granted} TO {names['one_anon']}", one=one, two=two)
    async with await session_in_postgres(tenants, two) as session:
        await session.execute(filled("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {one_app}", one=one, two=two))
    async with await session_in_postgres(tenants, one) as session:
        await session.execute("SELECT lo_create(0) FROM generate_series(1, 400)")

    await databases.delete_database(one.cleanup())

    assert await left_of(superuser, tenants, one) == set()
    policies = await superuser.execute(
        "SELECT policyname::text FROM pg_policies WHERE schemaname = %s", [two.names.schema_name]
    )
    assert await policies.fetchall() == [("shared",)]
    assert await tenants.query(three, f"SELECT id FROM {two.names.schema_name}.t") == []


@pytest.mark.every_postgres
async def test_grants_handed_on_hold_no_deletion_up_whatever_became_of_the_grantor(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    three, four = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(three.step)
    await databases.reconcile_database(four.step)
    names = {"three": three.names.app_role, "four": four.names.app_role, "anon": one.names.anon_role}

    async def as_(tenant: Tenant, *statements: str) -> None:
        for statement in statements:
            for name, role in names.items():
                statement = statement.replace(f"<{name}>", role)
            await run(tenants, tenant, statement, one=one, two=two)

    # `two` has them, `three` may hand them on to `four` and to `one`, which goes.
    things = (
        "SELECT ON {two}.t",
        "UPDATE (i) ON {two}.t",
        "USAGE ON SEQUENCE {two}.s",
        "USAGE ON TYPE {two}.e",
        "EXECUTE ON FUNCTION {two}.agg(int, int)",
        "EXECUTE ON FUNCTION {two}.odd(int, int)",
        "EXECUTE ON FUNCTION {two}.at(int, {two}.e)",
    )
    await as_(
        two,
        "CREATE TABLE {two}.t (i int, j int); CREATE SEQUENCE {two}.s",
        "CREATE TYPE {two}.e AS ENUM (); CREATE FUNCTION {two}.at(int, {two}.e) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION {two}.step(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE AGGREGATE {two}.agg(int ORDER BY int) (SFUNC = {two}.step, STYPE = int)",
        "CREATE AGGREGATE {two}.odd(int ORDER BY int) (SFUNC = {two}.step, STYPE = int, HYPOTHETICAL)",
        "GRANT USAGE ON SCHEMA {two} TO <three>, <four>, <anon>",
        *(f"GRANT {thing} TO <three> WITH GRANT OPTION" for thing in things),
    )
    for thing in things:
        await as_(three, f"GRANT {thing} TO {{one_app}} WITH GRANT OPTION")
        # In a ring, so that the first revocation takes from the next what it would revoke.
        await as_(one, f"GRANT {thing} TO <four> WITH GRANT OPTION")
        await as_(four, f"GRANT {thing} TO <anon>")
    await as_(two, "REVOKE USAGE ON SCHEMA {two} FROM <three>")
    # Who counts as the owner has it still, whoever loses it: no CASCADE goes on from there.
    await superuser.execute(
        SQL("GRANT {} TO {}").format(Identifier(two.names.app_role), Identifier(four.names.app_role))
    )

    await databases.delete_database(one.cleanup())

    assert await left_of(superuser, tenants, one) == set()
    [(is_let_in,)] = await (
        await superuser.execute(
            "SELECT has_schema_privilege(%s, %s, 'USAGE')", [three.names.app_role, two.names.schema_name]
        )
    ).fetchall()
    assert not is_let_in


@pytest.mark.every_postgres
async def test_only_the_grants_to_what_goes_are_taken_back(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    three, four = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(three.step)
    await databases.reconcile_database(four.step)
    await tenants.query(
        two,
        "CREATE TABLE t (i int)",
        "CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE AGGREGATE agg(int ORDER BY int) (SFUNC = step, STYPE = int)",
        f"GRANT USAGE ON SCHEMA {two.names.schema_name} TO {three.names.app_role}, {four.names.app_role}",
        f"GRANT SELECT ON t TO {three.names.app_role} WITH GRANT OPTION",
        f"GRANT EXECUTE ON FUNCTION agg(int, int) TO {three.names.app_role} WITH GRANT OPTION",
    )
    grant = f"GRANT SELECT ON {two.names.schema_name}.t TO {{}}"
    await tenants.query(
        three,
        grant.format(one.names.app_role),
        grant.format(four.names.app_role),
        f"GRANT EXECUTE ON FUNCTION {two.names.schema_name}.agg(int, int) TO {one.names.app_role}",
    )

    await tenants.query(two, f"REVOKE USAGE ON SCHEMA {two.names.schema_name} FROM {three.names.app_role}")

    await databases.delete_database(one.cleanup())

    assert await left_of(superuser, tenants, one) == set()
    await tenants.query(two, f"GRANT USAGE ON SCHEMA {two.names.schema_name} TO {three.names.app_role}")
    assert await tenants.query(four, f"SELECT i FROM {two.names.schema_name}.t") == []
    await tenants.query(three, grant.format(four.names.app_role))


# As whom, in which database, and what the open transaction did.
OPEN = {
    "grant": ("two", "plattr", "GRANT USAGE ON SCHEMA {two} TO {one_app}"),
    "default-privileges": ("two", "plattr", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {one_app}"),
    "elsewhere": ("two", "postgres", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {one_app}"),
    "reading": ("two", "plattr", "SELECT * FROM {one}.page"),
    "locking": ("two", "plattr", "LOCK TABLE {one}.page IN ACCESS SHARE MODE"),
    "own-password": ("one", "plattr", "ALTER ROLE {one_app} PASSWORD 'another'"),
}


@pytest.mark.parametrize(("who", "database", "statement"), OPEN.values(), ids=OPEN)
async def test_open_transaction_is_ended_and_its_owner_told(
    who: str,
    database: str,
    statement: str,
    databases: Databases,
    database_kube: KubeClient,
    tenants: Tenants,
    superuser: Superuser,
    open_postgres: None,
) -> None:
    one, two = await two_of(databases, tenants)
    await make_things(tenants, one, two)
    tenant = one if who == "one" else two
    session = await (tenants.session(tenant) if database == "plattr" else session_in_postgres(tenants, tenant))
    await session.execute("BEGIN")
    await session.execute(filled(statement, one=one, two=two).encode())

    await databases.delete_database(one.cleanup())

    assert await left_of(superuser, tenants, one) == set()
    with pytest.raises(AdminShutdown):
        await session.execute("SELECT 1")
    await session.close()
    if who == "two":
        assert one.target.owner.reference.key in (await events_of(database_kube, two))["SessionEnded"]


@pytest.mark.every_postgres
async def test_memberships_and_things_given_away_hold_no_role_back_and_reach_no_admin(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    three = await tenants.apply()
    await databases.reconcile_database(three.step)
    names = {
        "one": Identifier(one.names.app_role),
        "two": Identifier(two.names.app_role),
        "three": Identifier(three.names.app_role),
    }
    await superuser.execute(SQL("GRANT {two} TO {one} WITH ADMIN OPTION").format(**names))
    before = await owned_by_admin(superuser)
    async with await tenants.session(one) as session:
        await session.execute(SQL("GRANT {two} TO {three}").format(**names))
        for statement in (
            "CREATE FUNCTION {two}.given(text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN END $$",
            "ALTER FUNCTION {two}.given OWNER TO {two_app}",
            "CREATE TABLE {one}.given (id int)",
            "ALTER TABLE {one}.given OWNER TO {two_app}",
        ):
            await session.execute(filled(statement, one=one, two=two).encode())

    with pytest.raises(HeldByDependents) as held:
        await databases.delete_database(one.cleanup())
    await databases.delete_database(cascading(one))

    assert f"table {one.names.schema_name}.given" in str(held.value)
    assert await left_of(superuser, tenants, one) == set()
    assert await kinds_of(superuser, two) == {"given"}
    for tenant in (two, three):
        await databases.delete_database(tenant.cleanup())
        assert await left_of(superuser, tenants, tenant) == set()
    assert await owned_by_admin(superuser) == before
