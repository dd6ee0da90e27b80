"""The SQL text that ends the sessions that keep the server's notification queue from being emptied."""

# Ends the session that the server named, if its role is an application's. Ends also the sessions of this role that have
# been in a transaction for over a second, since the server names only one session in five seconds. Only the admin can
# write a record on a role, so only a role with a record of ours is an application's.
# `xact_start` decides, not the state: a session whose client reads nothing is "idle" and yet in a transaction.
# The query covers all databases, because they share the queue.
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
