"""The SQL texts of Plattr's private schema: what it keeps in the database, where no tenant reaches.

A lock must not be one that a tenant's session can take, so it is a row here and no advisory lock: see
docs/decisions/0026-locks-are-rows.md.
"""

from collections.abc import Mapping

from plattr.naming import PRIVATE_SCHEMA

# One row an owner, locked to the end of a transaction. Measured with 50 sessions on 15.18 and 18.6: the same owner
# eight times at once fails 233 to 250 of 480 without a lock (42710, 23505, XX000) and 0 of 480 with one; different
# owners fail 0 of 750 either way, so one lock for all would only make them wait for each other.
LOCKS_TABLE = "locks"
# One row a cluster: which installation of that name is alive; see plattr/sql_installations.py.
INSTALLATIONS_TABLE = "installations"

# Each table by its name; whoever adds one here has it made at the next start of a worker.
TABLES: Mapping[str, str] = {
    LOCKS_TABLE: f"CREATE TABLE IF NOT EXISTS {PRIVATE_SCHEMA}.{LOCKS_TABLE} (owner text PRIMARY KEY)",
    INSTALLATIONS_TABLE: f"CREATE TABLE IF NOT EXISTS {PRIVATE_SCHEMA}.{INSTALLATIONS_TABLE}"
    " (cluster text PRIMARY KEY, token text NOT NULL, renewed timestamptz NOT NULL)",
}

# What is there, and whether this admin may use it. CREATE is asked for where a table is missing only.
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

# The REVOKEs are the server's default; said all the same, for an admin may have default privileges of his own.
CREATE = "; ".join(
    [
        f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}",
        *TABLES.values(),
        f"REVOKE ALL ON SCHEMA {PRIVATE_SCHEMA} FROM PUBLIC",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {PRIVATE_SCHEMA} FROM PUBLIC",
    ]
)

# SKIP LOCKED: whoever finds the lock held gives his connection back and comes again. `is_known` tells a row that
# is held from one that nobody has made yet.
TRY_LOCK = f"""
WITH mine AS (SELECT FROM {PRIVATE_SCHEMA}.{LOCKS_TABLE} WHERE owner = %(owner)s FOR UPDATE SKIP LOCKED)
SELECT
    EXISTS (SELECT FROM mine) AS is_mine,
    EXISTS (SELECT FROM {PRIVATE_SCHEMA}.{LOCKS_TABLE} WHERE owner = %(owner)s) AS is_known,
    set_config('lock_timeout', %(patience)s, true)
"""  # noqa: S608  names of ours
# In a transaction of its own that ends at once: two that make the same row wait for each other's end.
KNOW_OWNER = f"INSERT INTO {PRIVATE_SCHEMA}.{LOCKS_TABLE} (owner) VALUES (%(owner)s) ON CONFLICT DO NOTHING"  # noqa: S608
# By its holder. Whoever comes meanwhile finds the row held, and makes it again afterwards.
FORGET_OWNER = f"DELETE FROM {PRIVATE_SCHEMA}.{LOCKS_TABLE} WHERE owner = %(owner)s RETURNING owner"  # noqa: S608
