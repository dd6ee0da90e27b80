"""The SQL texts that find what an owner has, and remove it."""

from psycopg.sql import Identifier

from plattr.sql import Statement, compose

# What an owner has, found by the comments alone. The comment on a schema's owning role counts before the one on
# the schema: an application owns its schema and can write anything there, but not on its role.
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
SELECT found.name, found.record
FROM (
    SELECT
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

# usesysid: background workers have none, and ending one of those fails with 42501.
# 2000 ms: a healthy backend ends within a few; the rest of the wait is for one that is swapped out.
END_SESSIONS = """
SELECT pid, pg_terminate_backend(pid, 2000) FROM pg_stat_activity
WHERE usesysid = ANY (%(roles)s) AND pid <> pg_backend_pid()
"""
# A transaction keeps the list of sessions that it read first.
FORGET_SESSIONS = "SELECT pg_stat_clear_snapshot()"
COUNT_SESSIONS = "SELECT count(*) AS sessions FROM pg_stat_activity WHERE usesysid = ANY (%(roles)s)"
# Large objects live outside every schema. 1000 at a time: each takes a lock, and the lock table is bounded.
LARGE_OBJECT_BATCH = 1000
UNLINK_LARGE_OBJECTS = """
SELECT count(lo_unlink(oid)) AS unlinked FROM (
    SELECT oid FROM pg_largeobject_metadata WHERE lomowner = ANY (%(roles)s) LIMIT %(batch)s
) AS batch
"""


def drop_schema(schema: str) -> Statement:
    """Return the statement that drops a schema and all that is in it."""
    return compose("DROP SCHEMA IF EXISTS {} CASCADE", Identifier(schema))


def drop_role(role: str) -> Statement:
    """Return the seed's last three statements of a role's end; the owner is never hard-coded as postgres."""
    return compose(
        "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE IF EXISTS {0}", Identifier(role)
    )
