"""The SQL texts of Plattr's private schema: what Plattr keeps in the database, where no tenant has access.

A tenant's session must not be able to take one of Plattr's locks. So a lock is a row here, not an advisory lock: see
docs/decisions/0026-locks-are-rows.md.
"""

from collections.abc import Mapping

from plattr.naming import PRIVATE_SCHEMA

# One row an owner, locked until the transaction ends. Measured with 50 sessions on 15.18 and 18.6: with the same owner
# eight times at once, 233 to 250 of 480 fail without a lock (42710, 23505, XX000), and 0 of 480 with one. With
# different owners, 0 of 750 fail either way. One lock for all would only make owners wait for each other.
LOCKS_TABLE = "locks"
# One row a cluster id: which installation under this id is alive; see plattr/sql_installations.py.
INSTALLATIONS_TABLE = "installations"

# Each table by its name. A worker creates a table that is added here at its next start.
TABLES: Mapping[str, str] = {
    LOCKS_TABLE: f"CREATE TABLE IF NOT EXISTS {PRIVATE_SCHEMA}.{LOCKS_TABLE} (owner text PRIMARY KEY)",
    INSTALLATIONS_TABLE: f"CREATE TABLE IF NOT EXISTS {PRIVATE_SCHEMA}.{INSTALLATIONS_TABLE}"
    " (cluster text PRIMARY KEY, token text NOT NULL, renewed timestamptz NOT NULL)",
}

# Which tables exist, and whether this admin may use them. The right to CREATE is needed only where a table is missing.
_MAY_USE = " AND ".join(
    f"has_table_privilege(class.oid, '{right}')" for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
)
LOOK = f"""
SELECT
    ns.nspowner::regrole::text AS owner,
    has_schema_privilege(ns.oid, 'USAGE') AS is_open,
    ARRAY(
        SELECT class.relname::text FROM pg_class AS class WHERE class.relnamespace = ns.oid AND {_MAY_USE}
    ) AS tables,
    ARRAY(
        SELECT class.relname::text FROM pg_class AS class WHERE class.relnamespace = ns.oid AND NOT ({_MAY_USE})
    ) AS closed
FROM pg_namespace AS ns WHERE ns.nspname = '{PRIVATE_SCHEMA}'
"""  # noqa: S608  a name of ours

# The REVOKEs repeat the server's default, because an admin may have default privileges of his own.
CREATE = "; ".join(
    [
        f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}",
        *TABLES.values(),
        f"REVOKE ALL ON SCHEMA {PRIVATE_SCHEMA} FROM PUBLIC",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {PRIVATE_SCHEMA} FROM PUBLIC",
    ]
)

# SKIP LOCKED: a caller that finds the lock held returns its connection and tries again later. `is_known` tells a held
# row from a row that does not exist yet.
TRY_LOCK = f"""
WITH mine AS (SELECT FROM {PRIVATE_SCHEMA}.{LOCKS_TABLE} WHERE owner = %(owner)s FOR UPDATE SKIP LOCKED)
SELECT
    EXISTS (SELECT FROM mine) AS is_mine,
    EXISTS (SELECT FROM {PRIVATE_SCHEMA}.{LOCKS_TABLE} WHERE owner = %(owner)s) AS is_known,
    set_config('lock_timeout', %(patience)s, true)
"""  # noqa: S608  names of ours
# Runs in its own transaction, which ends at once: two sessions that insert the same row wait for each other's end.
KNOW_OWNER = f"INSERT INTO {PRIVATE_SCHEMA}.{LOCKS_TABLE} (owner) VALUES (%(owner)s) ON CONFLICT DO NOTHING"  # noqa: S608
# The lock's holder runs this. A caller that comes meanwhile finds the row held, and creates it again afterwards.
FORGET_OWNER = f"DELETE FROM {PRIVATE_SCHEMA}.{LOCKS_TABLE} WHERE owner = %(owner)s RETURNING owner"  # noqa: S608
