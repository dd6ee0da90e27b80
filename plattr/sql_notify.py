"""The SQL text that ends who keeps the server's queue of notifications from being emptied."""

# Whom the server named, if it is an application's, and what else its role has had in a transaction for a second: the
# server names one in five seconds. Only a role that carries a record of ours is an application's, and nobody but the
# admin can write one. `xact_start`, and not the state: a session whose client reads nothing is "idle" and yet in a
# transaction. Of all databases, for the queue is.
END_HOLDER = """
WITH holder AS MATERIALIZED (
    SELECT role.oid, role.rolname, record.description
    FROM pg_stat_activity AS session
    JOIN pg_roles AS role ON role.oid = session.usesysid
    JOIN pg_shdescription AS record ON record.objoid = role.oid AND record.classoid = 'pg_authid'::regclass
    WHERE session.pid = %(pid)s AND session.xact_start IS NOT NULL AND starts_with(record.description, %(prefix)s)
), found AS MATERIALIZED (
    SELECT session.pid, holder.rolname, holder.description
    FROM pg_stat_activity AS session JOIN holder ON holder.oid = session.usesysid
    WHERE session.pid = %(pid)s OR session.xact_start < now() - interval '1 second'
)
SELECT pid, rolname AS role, description AS record, pg_terminate_backend(pid, 2000) AS ended FROM found
"""
