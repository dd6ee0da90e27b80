"""The SQL texts that find what an owner has, what others made of it, and remove it.

Names in the answers are a tenant's words. The server quotes every name in the statements that it composes here. With
`search_path` set to pg_catalog alone, the server writes each name with its schema.
"""

from collections.abc import Sequence
from typing import LiteralString

from psycopg.sql import SQL, Composed, Identifier

from plattr.sql import Statement, compose

# What an owner has, found by the comments alone. The comment on a schema's owning role counts before the schema's own.
# An application owns its schema and can write any comment there, but it cannot write one on its role.
OWNED_ROLES = """
SELECT
    role.oid::bigint AS oid,
    role.rolname AS name,
    record.description AS record,
    role.rolcanlogin AS can_login,
    pg_has_role(role.oid, 'USAGE') AND pg_has_role(role.oid, %(admin_privilege)s) AS admin_has_it
FROM pg_roles AS role
JOIN pg_shdescription AS record ON record.objoid = role.oid AND record.classoid = 'pg_authid'::regclass
WHERE starts_with(record.description, %(beginning)s)
ORDER BY role.rolname
"""
OWNED_SCHEMAS = """
SELECT found.oid, found.name, found.record
FROM (
    SELECT
        ns.oid::bigint AS oid,
        ns.nspname AS name,
        CASE WHEN starts_with(role.description, %(prefix)s) THEN role.description ELSE own.description END AS record
    FROM pg_namespace AS ns
    LEFT JOIN pg_description AS own
        ON own.objoid = ns.oid AND own.classoid = 'pg_namespace'::regclass AND own.objsubid = 0
    LEFT JOIN pg_shdescription AS role ON role.objoid = ns.nspowner AND role.classoid = 'pg_authid'::regclass
) AS found
WHERE starts_with(found.record, %(beginning)s)
ORDER BY found.name
"""

# usesysid: background workers have none, and ending one of them fails with 42501.
# 2000 ms: a healthy backend ends within a few. The rest of the wait is for a backend that is swapped out.
END_SESSIONS = """
SELECT pid, pg_terminate_backend(pid, 2000) FROM pg_stat_activity
WHERE usesysid = ANY (%(roles)s) AND pid <> pg_backend_pid()
"""
# Within a transaction the server repeats the list of sessions that it read first.
FORGET_SESSIONS = "SELECT pg_stat_clear_snapshot()"
COUNT_SESSIONS = "SELECT count(*) AS sessions FROM pg_stat_activity WHERE usesysid = ANY (%(roles)s)"

# The sessions that block our session `pid`. Only the admin can write a record on a role, so only a role with a record
# of ours is an application's. Only sessions of such roles are ended.
END_BLOCKERS = """
SELECT session.pid, role.rolname AS role, record.description AS record,
    CASE WHEN starts_with(record.description, %(prefix)s) THEN pg_terminate_backend(session.pid) ELSE false END
        AS ended
FROM unnest(pg_blocking_pids(%(pid)s)) AS blocker (pid)
JOIN pg_stat_activity AS session ON session.pid = blocker.pid
JOIN pg_roles AS role ON role.oid = session.usesysid
LEFT JOIN pg_shdescription AS record ON record.objoid = role.oid AND record.classoid = 'pg_authid'::regclass
"""
# An application has no business in a database other than Plattr's.
END_STRANGERS = """
SELECT session.pid, role.rolname AS role, record.description AS record,
    pg_terminate_backend(session.pid, 2000) AS ended
FROM pg_stat_activity AS session
JOIN pg_roles AS role ON role.oid = session.usesysid
JOIN pg_shdescription AS record ON record.objoid = role.oid AND record.classoid = 'pg_authid'::regclass
WHERE session.datname = current_database() AND starts_with(record.description, %(prefix)s)
"""

# The most locks that one transaction of ours may take. Dropping a thing locks it and everything that depends on it. The
# whole server shares one lock table with 6,400 places by default. A client that finds no place cannot even connect. Ten
# removals at once must leave most places free.
LOCKS_AT_ONCE = 300

# Large objects live outside every schema, and each takes a lock.
UNLINK_LARGE_OBJECTS = """
SELECT count(lo_unlink(oid)) AS unlinked FROM (
    SELECT oid FROM pg_largeobject_metadata WHERE lomowner = ANY (%(roles)s) LIMIT %(batch)s
) AS batch
"""

# The parts of a table that has too many to be dropped at once. Foreign keys come first: the keys that they refer to
# cannot be dropped before them.
PARTS = """
SELECT part.statement FROM (
    SELECT 0 AS rank,
        format('ALTER TABLE IF EXISTS %%s DROP CONSTRAINT IF EXISTS %%I', conrelid::regclass, conname) AS statement
    FROM pg_constraint JOIN pg_class AS class ON class.oid = conrelid
    WHERE contype = 'f' AND coninhcount = 0 AND (conrelid = %(table)s OR confrelid = %(table)s)
        AND class.relowner = ANY (%(roles)s)
    UNION ALL
    SELECT 1, format('ALTER TABLE IF EXISTS %%s DROP CONSTRAINT IF EXISTS %%I', conrelid::regclass, conname)
    FROM pg_constraint WHERE conrelid = %(table)s AND contype IN ('c', 'u', 'x') AND coninhcount = 0
    UNION ALL
    SELECT 1, format('DROP TRIGGER IF EXISTS %%I ON %%s', tgname, tgrelid::regclass)
    FROM pg_trigger WHERE tgrelid = %(table)s AND NOT tgisinternal AND tgparentid = 0
    UNION ALL
    SELECT 1, format('DROP POLICY IF EXISTS %%I ON %%s', polname, polrelid::regclass)
    FROM pg_policy WHERE polrelid = %(table)s
    UNION ALL
    SELECT 1, format('DROP RULE IF EXISTS %%I ON %%s', rulename, ev_class::regclass)
    FROM pg_rewrite WHERE ev_class = %(table)s AND ev_type <> '1'
    UNION ALL
    SELECT 1, format('DROP INDEX IF EXISTS %%s', indexrelid::regclass)
    FROM pg_index WHERE indrelid = %(table)s AND NOT EXISTS (
        SELECT FROM pg_depend AS part
        WHERE part.classid = 'pg_class'::regclass AND part.objid = indexrelid AND part.deptype IN ('i', 'P', 'S')
    )
) AS part
ORDER BY part.rank
LIMIT %(most)s
"""

# Policies on others' tables that name the roles. DROP OWNED would lock all these tables at once.
POLICIES = """
SELECT CASE
    WHEN rest.names IS NULL THEN format('DROP POLICY %%I ON %%s', policy.polname, policy.polrelid::regclass)
    ELSE format('ALTER POLICY %%I ON %%s TO %%s', policy.polname, policy.polrelid::regclass, rest.names)
END AS statement
FROM pg_policy AS policy
JOIN pg_class AS class ON class.oid = policy.polrelid
CROSS JOIN LATERAL (
    SELECT string_agg(quote_ident(role.rolname), ', ') AS names FROM pg_roles AS role
    WHERE role.oid = ANY (policy.polroles) AND role.oid <> ALL (%(roles)s)
) AS rest
WHERE policy.oid IN (
        SELECT objid FROM pg_shdepend
        WHERE refclassid = 'pg_authid'::regclass AND refobjid = ANY (%(roles)s) AND deptype = 'r'
            AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
    AND pg_has_role(class.relowner, 'USAGE')
LIMIT %(most)s
"""

# Grants to the roles by a grantor who is not the owner, but has the grant option. DROP OWNED acts as the owner and
# leaves these grants. So each grantor revokes his own grants:
# - The statement lists only what the grantor granted. Otherwise the server takes another role for the grantor.
# - The statement runs as the grantor himself, because the admin counts as every role that he is a member of.
# - The grantor needs access to the schemas in which the server looks the names up.
# - Each thing gets one statement. Its CASCADE may take away grants that another grantor would revoke.
# - Members of the owner come first, because CASCADE ends at them.
REGRANTS = """
WITH granted AS MATERIALIZED (
    SELECT DISTINCT classid, objid FROM pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass AND refobjid = ANY (%(roles)s) AND deptype = 'a'
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
), entry AS (
    SELECT CASE class.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, class.oid::regclass::text AS name,
        ARRAY[class.relnamespace] AS schemas, class.relowner AS owner, acl.privilege_type AS privilege, acl.grantor,
        acl.grantee
    FROM granted JOIN pg_class AS class ON granted.classid = 'pg_class'::regclass AND class.oid = granted.objid
    CROSS JOIN aclexplode(class.relacl) AS acl
    UNION ALL
    SELECT 'TABLE', class.oid::regclass::text, ARRAY[class.relnamespace], class.relowner,
        format('%%s (%%I)', acl.privilege_type, attribute.attname), acl.grantor, acl.grantee
    FROM granted JOIN pg_class AS class ON granted.classid = 'pg_class'::regclass AND class.oid = granted.objid
    JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
    CROSS JOIN aclexplode(attribute.attacl) AS acl
    UNION ALL
    SELECT 'ROUTINE', format('%%I.%%I(%%s)', ns.nspname, proc.proname,
            -- REVOKE takes no ORDER BY of an ordered-set aggregate; a procedure's name can mean two without modes.
            CASE proc.prokind WHEN 'a' THEN types.names ELSE pg_get_function_identity_arguments(proc.oid) END),
        types.schemas || ns.oid, proc.proowner, acl.privilege_type, acl.grantor, acl.grantee
    FROM granted JOIN pg_proc AS proc ON granted.classid = 'pg_proc'::regclass AND proc.oid = granted.objid
    JOIN pg_namespace AS ns ON ns.oid = proc.pronamespace
    CROSS JOIN LATERAL (
        SELECT string_agg(format_type(type.oid, NULL), ', ' ORDER BY argument.place) AS names,
            coalesce(array_agg(DISTINCT type.typnamespace), '{}') AS schemas
        FROM unnest(coalesce(proc.proallargtypes, proc.proargtypes::oid[])) WITH ORDINALITY AS argument (type, place)
        JOIN pg_type AS type ON type.oid = argument.type
    ) AS types
    CROSS JOIN aclexplode(proc.proacl) AS acl
    UNION ALL
    SELECT 'TYPE', granted.objid::regtype::text, ARRAY[type.typnamespace], type.typowner, acl.privilege_type,
        acl.grantor, acl.grantee
    FROM granted JOIN pg_type AS type ON granted.classid = 'pg_type'::regclass AND type.oid = granted.objid
    CROSS JOIN aclexplode(type.typacl) AS acl
    UNION ALL
    SELECT 'SCHEMA', quote_ident(ns.nspname), '{}', ns.nspowner, acl.privilege_type, acl.grantor, acl.grantee
    FROM granted JOIN pg_namespace AS ns ON granted.classid = 'pg_namespace'::regclass AND ns.oid = granted.objid
    CROSS JOIN aclexplode(ns.nspacl) AS acl
    UNION ALL
    SELECT 'LARGE OBJECT', lo.oid::text, '{}', lo.lomowner, acl.privilege_type, acl.grantor, acl.grantee
    FROM granted
    JOIN pg_largeobject_metadata AS lo ON granted.classid = 'pg_largeobject'::regclass AND lo.oid = granted.objid
    CROSS JOIN aclexplode(lo.lomacl) AS acl
), regrant AS (
    SELECT kind, name, schemas, owner, grantor, format(
        'REVOKE %%s ON %%s %%s FROM %%s CASCADE',
        string_agg(DISTINCT privilege, ', '), kind, name, string_agg(DISTINCT quote_ident(grantee.rolname), ', ')
    ) AS statement
    FROM entry JOIN pg_roles AS grantee ON grantee.oid = entry.grantee
    -- What a role that goes has granted itself goes with DROP OWNED.
    WHERE entry.grantee = ANY (%(roles)s) AND grantor <> owner AND grantor <> ALL (%(roles)s)
    GROUP BY kind, name, schemas, owner, grantor
)
SELECT DISTINCT ON (regrant.kind, regrant.name) role.rolname AS grantor, regrant.statement, closed.doors
FROM regrant
JOIN pg_roles AS role ON role.oid = regrant.grantor
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(ARRAY[host.rolname, ns.nspname]::text[]), '{}') AS doors,
        coalesce(bool_and(pg_has_role(host.oid, %(set_privilege)s)), true) AS can_open
    FROM pg_namespace AS ns JOIN pg_roles AS host ON host.oid = ns.nspowner
    WHERE ns.oid = ANY (regrant.schemas) AND NOT has_schema_privilege(regrant.grantor, ns.oid, 'USAGE')
) AS closed
WHERE closed.can_open AND pg_has_role(regrant.grantor, %(set_privilege)s)
ORDER BY regrant.kind, regrant.name, pg_has_role(regrant.grantor, regrant.owner, 'USAGE') DESC, regrant.grantor
LIMIT %(most)s
"""

# The other databases in which the roles own something or are named, and whether the admin may connect there. The
# server's answer to a refused connection has no SQLSTATE and looks like an outage.
OTHER_DATABASES = """
SELECT DISTINCT database.datname AS name, quote_ident(current_user) AS admin, database.datallowconn AS is_open,
    has_database_privilege(database.oid, 'CONNECT') AS may_connect
FROM pg_shdepend AS dependency
JOIN pg_database AS database ON database.oid = dependency.dbid
WHERE dependency.refclassid = 'pg_authid'::regclass AND dependency.refobjid = ANY (%(roles)s)
    AND database.datname <> current_database()
ORDER BY name
"""
# The schemas that still hold something: things that belong to no application and that no statement of their own drops.
OCCUPIED_SCHEMAS = """
SELECT DISTINCT refobjid::bigint AS oid FROM pg_depend
WHERE refclassid = 'pg_namespace'::regclass AND refobjid = ANY (%(schemas)s) AND deptype = 'n'
"""
# What still names the roles, here or in the catalogues that all databases share, after Plattr has removed all it may.
HOLDERS = """
SELECT named.type AS kind, named.identity FROM pg_shdepend AS dependency
CROSS JOIN LATERAL pg_identify_object(dependency.classid, dependency.objid, dependency.objsubid) AS named
WHERE dependency.refclassid = 'pg_authid'::regclass AND dependency.refobjid = ANY (%(roles)s)
    AND dependency.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY kind, identity
LIMIT %(most)s
"""


def of_server(text: str) -> Statement:
    """Return a statement that one of the queries above composed; the server has quoted every name in it."""
    return Composed([SQL(text)])


def as_role(role: str, statement: Statement) -> Statement:
    """Return the statement, run as another role within the transaction."""
    return compose("SET LOCAL ROLE {}; {}; SET LOCAL ROLE NONE", Identifier(role), statement)


def revocation(grantor: str, text: str, doors: Sequence[tuple[str, str]]) -> list[Statement]:
    """Return a statement of `REGRANTS`, with the grantor let into the schemas (owner, name) only for it."""
    return let_in(grantor, doors, as_role(grantor, of_server(text)))


def let_in(role: str, doors: Sequence[tuple[str, str]], statement: Statement) -> list[Statement]:
    """Return the statement, with the role let into the schemas (owner, name) only for it."""
    names = [(owner, (Identifier(schema), Identifier(role))) for owner, schema in doors]
    return [
        *(as_role(owner, compose("GRANT USAGE ON SCHEMA {} TO {}", *pair)) for owner, pair in names),
        statement,
        *(as_role(owner, compose("REVOKE USAGE ON SCHEMA {} FROM {}", *pair)) for owner, pair in names),
    ]


def lock_tables(names: Sequence[str]) -> Statement:
    """Return the statement that stops everyone from building on these tables; the server quoted the names."""
    text = ", ".join(f"ONLY {name}" for name in names)
    return compose("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", of_server(text))


def drop_schema(schema: str, *, cascade: bool) -> Statement:
    """Return the statement that drops a schema; with `cascade` also what is in it, and what depends on that."""
    text: LiteralString = "DROP SCHEMA IF EXISTS {} CASCADE" if cascade else "DROP SCHEMA IF EXISTS {} RESTRICT"
    return compose(text, Identifier(schema))


def drop_owned(roles: Sequence[str], *, cascade: bool) -> Statement:
    """Return the statement that drops what roles own in this database, and revokes what was granted to them there.

    The seed uses REASSIGN OWNED. Plattr never does: see docs/decisions/0025-nothing-of-a-tenant-is-the-admins.md.
    """
    names = SQL(", ").join(Identifier(role) for role in roles)
    return compose("DROP OWNED BY {} CASCADE" if cascade else "DROP OWNED BY {} RESTRICT", names)


def drop_role(role: str) -> Statement:
    """Return the statement that drops a role."""
    return compose("DROP ROLE IF EXISTS {}", Identifier(role))
