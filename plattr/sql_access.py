"""The SQL texts that give anon, the public API, the spec's access: applied once, and again when the spec changes."""

from collections.abc import Sequence

from psycopg.sql import SQL, Identifier

from plattr.naming import RoleName, SchemaName
from plattr.objects import FrozenModel
from plattr.sql import Statement, compose

# 500 at a time: a GRANT locks each table from 18 on, and the whole server shares the lock table.
ACCESS_BATCH = 500

# What is still to be granted or revoked, of the application's own things only. What a third role made in the schema is
# not the admin's to give away, and another application is such a role. On the owner's behalf, only a grant by the owner
# himself can be revoked.
ACCESS = """
SELECT
    ARRAY(
        SELECT class.relname::text FROM pg_class AS class
        WHERE class.relnamespace = ns.oid AND class.relowner = app.oid AND class.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND %(reads)s <> EXISTS (
                SELECT FROM aclexplode(class.relacl) AS acl
                WHERE acl.grantee = anon.oid AND acl.privilege_type = 'SELECT'
                    AND (%(reads)s OR acl.grantor = class.relowner)
            )
        ORDER BY class.oid LIMIT %(batch)s
    ) AS tables,
    (
        SELECT coalesce(json_agg(json_build_object('name', found.proname, 'types', found.types)), '[]')
        FROM (
            SELECT proc.proname, ARRAY(
                SELECT ARRAY[type_ns.nspname::text, type.typname::text]
                FROM unnest(proc.proargtypes) WITH ORDINALITY AS argument (oid, position)
                JOIN pg_type AS type ON type.oid = argument.oid
                JOIN pg_namespace AS type_ns ON type_ns.oid = type.typnamespace
                ORDER BY argument.position
            ) AS types
            FROM pg_proc AS proc
            WHERE %(closes)s AND proc.pronamespace = ns.oid AND proc.proowner = app.oid AND EXISTS (
                SELECT FROM aclexplode(coalesce(proc.proacl, acldefault('f', proc.proowner))) AS acl
                WHERE acl.grantee = 0 AND acl.privilege_type = 'EXECUTE' AND acl.grantor = proc.proowner
            )
            ORDER BY proc.oid LIMIT %(batch)s
        ) AS found
    ) AS routines
FROM pg_namespace AS ns
JOIN pg_roles AS app ON app.rolname = %(app)s
-- An anon role that was dropped is made again, and lacks everything.
LEFT JOIN pg_roles AS anon ON anon.rolname = %(anon)s
WHERE ns.nspname = %(schema)s
"""

# Functions that anon may not call, for the developer to know. A condition shows only names that are plain words,
# because a tenant chooses them.
CLOSED_ROUTINES = """
SELECT
    count(*) AS count,
    coalesce((array_agg(DISTINCT proc.proname::text) FILTER (WHERE proc.proname ~ '^[a-z_][a-z0-9_]*$'))[1:5], '{}')
        AS names
FROM pg_proc AS proc
JOIN pg_namespace AS ns ON ns.oid = proc.pronamespace AND ns.nspname = %(schema)s
JOIN pg_roles AS app ON app.oid = proc.proowner AND app.rolname = %(app)s
JOIN pg_roles AS anon ON anon.rolname = %(anon)s
WHERE proc.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
    AND NOT has_function_privilege(anon.oid, proc.oid, 'EXECUTE')
"""


class Routine(FrozenModel):
    """A function, procedure or aggregate: its name, and of each argument's type the schema and the name."""

    name: str
    types: tuple[tuple[str, str], ...]


def grant_usage(schema: SchemaName, role: RoleName) -> Statement:
    """Return the statement that opens a schema to a role."""
    return compose("GRANT USAGE ON SCHEMA {} TO {}", Identifier(schema), Identifier(role))


def revoke_usage(schema: SchemaName, role: RoleName) -> Statement:
    """Return the statement that closes a schema to a role."""
    return compose("REVOKE USAGE ON SCHEMA {} FROM {} CASCADE", Identifier(schema), Identifier(role))


def grant_select(schema: SchemaName, tables: Sequence[str], role: RoleName) -> Statement:
    """Return the statement that lets a role read these tables."""
    names = SQL(", ").join(Identifier(schema, table) for table in tables)
    return compose("GRANT SELECT ON TABLE {} TO {}", names, Identifier(role))


def revoke_select(schema: SchemaName, tables: Sequence[str], role: RoleName) -> Statement:
    """Return the statement that keeps a role, and the roles that it let in, from reading these tables."""
    names = SQL(", ").join(Identifier(schema, table) for table in tables)
    return compose("REVOKE SELECT ON TABLE {} FROM {} CASCADE", names, Identifier(role))


def grant_select_on_new_tables(schema: SchemaName, creator: RoleName, role: RoleName) -> Statement:
    """Return the statement that lets a role read what `creator` will make.

    Without FOR ROLE, the statement would mean what the admin will make.
    """
    return compose(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT SELECT ON TABLES TO {}",
        Identifier(creator),
        Identifier(schema),
        Identifier(role),
    )


def revoke_select_on_new_tables(schema: SchemaName, creator: RoleName, role: RoleName) -> Statement:
    """Return the statement that takes back what `grant_select_on_new_tables` gives."""
    return compose(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} REVOKE SELECT ON TABLES FROM {}",
        Identifier(creator),
        Identifier(schema),
        Identifier(role),
    )


def close_new_routines(creator: RoleName) -> Statement:
    """Return the statement that keeps everybody from calling what `creator` will make, unless the creator allows it.

    The statement has no IN SCHEMA. PUBLIC has this right by the server's default, which can be revoked for all schemas
    only. With IN SCHEMA, the statement silently does nothing.
    https://www.postgresql.org/docs/current/sql-alterdefaultprivileges.html
    """
    return compose("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC", Identifier(creator))


def close_routines(schema: SchemaName, routines: Sequence[Routine]) -> Statement:
    """Return the statement that keeps every role without a grant of the owner's from calling these routines."""
    signatures = SQL(", ").join(
        SQL("{}({})").format(
            Identifier(schema, routine.name),
            SQL(", ").join(Identifier(type_schema, type_name) for type_schema, type_name in routine.types),
        )
        for routine in routines
    )
    return compose("REVOKE EXECUTE ON ROUTINE {} FROM PUBLIC", signatures)
