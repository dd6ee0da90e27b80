"""Whoever names another's thing by its object id alone, and has no right on it, does not hold its deletion."""

import pytest

from clients.kube import KubeClient
from plattr.errors import HeldByDependents
from plattr.sql_removal import LOCKS_AT_ONCE
from tests.activities.test_database_many import MeasuredPostgres, delete_in_short_attempts, measured_postgres
from tests.fix_postgres import Databases, Superuser, Tenant, Tenants, events_of, left_of
from tests.rivals import filled, run, two_of

__all__ = ["measured_postgres"]

pytestmark = pytest.mark.attack

VICTIMS = (
    "CREATE TABLE {one}.page (id int PRIMARY KEY)",
    "CREATE SEQUENCE {one}.counter",
    "CREATE FUNCTION {one}.now_as_int() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE {one}.mood AS ENUM ('good')",
    "CREATE FUNCTION {one}.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR {one}.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = {one}.same)",
    "CREATE COLLATION {one}.odd (provider = libc, locale = 'C')",
    "CREATE TEXT SEARCH CONFIGURATION {one}.words (COPY = simple)",
)
# As `two`, with what everybody can read in the catalogue.
IDS = """
SELECT
    (SELECT oid FROM pg_namespace WHERE nspname = '{one}') AS schema,
    (SELECT oid FROM pg_class WHERE relnamespace = ns.oid AND relname = 'page') AS page,
    (SELECT oid FROM pg_class WHERE relnamespace = ns.oid AND relname = 'counter') AS counter,
    (SELECT oid FROM pg_proc WHERE pronamespace = ns.oid AND proname = 'now_as_int') AS now,
    (SELECT oid FROM pg_type WHERE typnamespace = ns.oid AND typname = 'mood') AS mood,
    (SELECT oid FROM pg_operator WHERE oprnamespace = ns.oid) AS operator,
    (SELECT oid FROM pg_collation WHERE collnamespace = ns.oid) AS collation,
    (SELECT oid FROM pg_ts_config WHERE cfgnamespace = ns.oid) AS words
FROM pg_namespace AS ns WHERE nspname = '{one}'
"""
BY_ID = (
    """
    CREATE TABLE {two}.kept (
        id int, a regclass DEFAULT '<page>'::regclass, b regprocedure DEFAULT '<now>'::regprocedure,
        c regtype DEFAULT '<mood>'::regtype, d regoperator DEFAULT '<operator>'::regoperator,
        e regcollation DEFAULT '<collation>'::regcollation, f regconfig DEFAULT '<words>'::regconfig,
        g regnamespace DEFAULT '<schema>'::regnamespace, h bigint DEFAULT nextval('<counter>'::regclass),
        i oid GENERATED ALWAYS AS ('<page>'::regclass::oid) STORED, j int CHECK (j <> '<page>'::regclass::oid::int)
    )
    """,
    "INSERT INTO {two}.kept (id, j, h) VALUES (7, 1, 1)",
    "CREATE VIEW {two}.on_kept AS SELECT id, i FROM {two}.kept",
    "CREATE DOMAIN {two}.dom AS regclass DEFAULT '<page>'::regclass",
    "CREATE DOMAIN {two}.checked AS int CHECK (VALUE <> '<page>'::regclass::oid::int)",
    "CREATE TABLE {two}.of_domains (a {two}.dom, b {two}.checked); INSERT INTO {two}.of_domains VALUES (NULL, 5)",
    "CREATE INDEX by_it ON {two}.kept ((id + '<page>'::regclass::oid::int))",
    "CREATE INDEX some_of_it ON {two}.kept (id) WHERE id <> '<page>'::regclass::oid::int",
    "ALTER TABLE {two}.kept ADD CONSTRAINT once EXCLUDE ((id + '<page>'::regclass::oid::int) WITH =)",
    "CREATE STATISTICS {two}.stats ON id, (id + '<page>'::regclass::oid::int) FROM {two}.kept",
    "CREATE POLICY mine ON {two}.kept USING (id <> '<page>'::regclass::oid::int)",
    "CREATE FUNCTION {two}.bell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    """
    CREATE TRIGGER rings BEFORE INSERT ON {two}.kept FOR EACH ROW WHEN (NEW.id = '<page>'::regclass::oid::int)
    EXECUTE FUNCTION {two}.bell()
    """,
    "CREATE RULE away AS ON DELETE TO {two}.kept DO ALSO SELECT '<page>'::regclass",
    "CREATE VIEW {two}.seen AS SELECT '<page>'::regclass AS a",
    "CREATE VIEW {two}.seen_again AS SELECT a FROM {two}.seen",
    "CREATE TABLE {two}.of_row (id int, row {two}.seen)",
    # No statement drops the column of such a table.
    "CREATE TYPE {two}.pair AS (row {two}.seen, id int)",
    "CREATE TABLE {two}.typed OF {two}.pair",
    "INSERT INTO {two}.typed (id) VALUES (3)",
    "CREATE MATERIALIZED VIEW {two}.stored AS SELECT '<page>'::regclass AS a",
    "CREATE FUNCTION {two}.body() RETURNS regclass LANGUAGE sql BEGIN ATOMIC SELECT '<page>'::regclass; END",
    "CREATE FUNCTION {two}.other({two}.dom, a regclass DEFAULT '<page>') RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE {two}.parent (id int) PARTITION BY RANGE ((id + '<page>'::regclass::oid::int))",
    "CREATE TABLE {two}.child PARTITION OF {two}.parent FOR VALUES FROM (0) TO (9)",
    "CREATE TABLE {two}.heir (j int) INHERITS ({two}.kept)",
)


async def name_by_id(tenants: Tenants, one: Tenant, two: Tenant, *statements: str) -> None:
    """Run statements as `two`, with the object ids of the things of `one`."""
    [row] = await run(tenants, two, IDS, one=one, two=two)
    names = ("schema", "page", "counter", "now", "mood", "operator", "collation", "words")
    for statement in statements:
        for name, number in zip(names, row, strict=True):
            statement = statement.replace(f"<{name}>", str(number))
        await run(tenants, two, statement, one=one, two=two)


async def strangers(databases: Databases, tenants: Tenants) -> tuple[Tenant, Tenant]:
    one, two = await tenants.apply(), await tenants.apply()
    await databases.reconcile_database(one.step)
    await databases.reconcile_database(two.step)
    await run(tenants, one, *VICTIMS, one=one, two=two)
    return one, two


@pytest.mark.every_postgres
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
async def test_object_ids_of_a_stranger_hold_no_deletion_up_and_cost_no_data(
    closed: bool, databases: Databases, database_kube: KubeClient, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await strangers(databases, tenants)
    await name_by_id(tenants, one, two, *BY_ID)
    named = await databases.dropping(one.cleanup()).dependents()
    if closed:
        await run(tenants, two, "REVOKE ALL ON SCHEMA {two} FROM {two_app}", one=one, two=two)

    await databases.delete_database(one.cleanup())

    assert named
    assert not any(each.holds for each in named)
    assert await left_of(superuser, tenants, one) == set()
    if closed:
        await run(tenants, two, "GRANT ALL ON SCHEMA {two} TO {two_app}", one=one, two=two)
    assert await run(tenants, two, "SELECT id, a IS NULL, i > 0, j FROM {two}.kept", one=one, two=two) == [
        (7, False, True, 1)
    ]
    assert await run(tenants, two, "SELECT b FROM {two}.of_domains", one=one, two=two) == [(5,)]
    assert await run(tenants, two, "SELECT id FROM {two}.typed", one=one, two=two) == [(3,)]
    assert await run(tenants, two, "SELECT id FROM {two}.on_kept", one=one, two=two) == [(7,)]
    assert one.target.owner.reference.key in (await events_of(database_kube, two))["DependentsRemoved"]


@pytest.mark.every_postgres
async def test_whoever_was_let_in_once_and_wrote_the_name_holds_the_deletion(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await two_of(databases, tenants)
    await run(tenants, one, *VICTIMS, "GRANT ALL ON {one}.page TO {two_app}", one=one, two=two)
    await run(
        tenants,
        two,
        "CREATE VIEW {two}.seen AS SELECT count(*) FROM {one}.page",
        "CREATE TABLE {two}.note (id int REFERENCES {one}.page)",
        "CREATE TABLE {two}.diary (feeling {one}.mood)",
        "CREATE TABLE {two}.stamped (id int DEFAULT {one}.now_as_int())",
        "CREATE TABLE {two}.counted (id int DEFAULT nextval('{one}.counter'))",
        one=one,
        two=two,
    )
    await run(
        tenants,
        one,
        "REVOKE ALL ON {one}.page FROM {two_app}",
        "REVOKE ALL ON SCHEMA {one} FROM {two_app}",
        one=one,
        two=two,
    )
    named = await databases.dropping(one.cleanup()).dependents()

    with pytest.raises(HeldByDependents) as held:
        await databases.delete_database(one.cleanup())

    wanted = (
        "view {two}.seen",
        "table constraint note_id_fkey on {two}.note",
        "table column {two}.diary.feeling",
        "default value for {two}.stamped.id",
    )
    assert {each.name for each in named if each.holds} == {filled(name, one=one, two=two) for name in wanted}
    # It has lost the right that its default needs.
    [default] = [each.name for each in named if not each.holds]
    assert default == filled("default value for {two}.counted.id", one=one, two=two)
    assert default not in str(held.value)
    assert await left_of(superuser, tenants, one)


async def test_object_ids_in_any_number_go_in_transactions_of_few_locks(
    databases: Databases,
    database_kube: KubeClient,
    tenants: Tenants,
    superuser: Superuser,
    measured_postgres: MeasuredPostgres,
) -> None:
    one, two = await strangers(databases, tenants)
    await name_by_id(
        tenants,
        one,
        two,
        "CREATE VIEW {two}.base AS SELECT '<page>'::regclass AS a",
        # Its column cannot be kept as an ordinary one.
        "CREATE TABLE {two}.virtual (id int, a oid GENERATED ALWAYS AS ('<page>'::regclass::oid) VIRTUAL)",
        "CREATE VIEW {two}.on_virtual AS SELECT a FROM {two}.virtual",
        "DO $$ BEGIN FOR i IN 1..200 LOOP"
        " EXECUTE format('CREATE VIEW {two}.v%s AS SELECT a FROM {two}.base', i);"
        " EXECUTE format('CREATE TABLE {two}.t%s (a regclass DEFAULT ''<page>''::regclass, row {two}.base)', i);"
        " END LOOP; END $$",
    )

    await delete_in_short_attempts(database_kube, measured_postgres, one)

    assert await left_of(superuser, tenants, one) == set()
    assert measured_postgres.most < LOCKS_AT_ONCE * 2


async def test_object_ids_that_cannot_be_dropped_in_pieces_hold_the_deletion_until_an_operator_says_so(
    databases: Databases, tenants: Tenants, superuser: Superuser
) -> None:
    one, two = await strangers(databases, tenants)
    await name_by_id(
        tenants,
        one,
        two,
        "CREATE TABLE {two}.parent (id int CHECK (id <> '<page>'::regclass::oid::int)) PARTITION BY LIST (id)",
        "DO $$ BEGIN FOR i IN 1..200 LOOP"
        " EXECUTE format('CREATE TABLE {two}.child%s PARTITION OF {two}.parent FOR VALUES IN (%s)', i, i);"
        " END LOOP; END $$",
    )

    with pytest.raises(HeldByDependents, match="parent"):
        await databases.delete_database(one.cleanup())

    await databases.delete_database(one.cleanup().model_copy(update={"cascade": True}))
    assert await left_of(superuser, tenants, one) == set()
    [(children,)] = await run(
        tenants, two, "SELECT count(*) FROM pg_inherits WHERE inhparent = '{two}.parent'::regclass", one=one, two=two
    )
    assert children == 200
