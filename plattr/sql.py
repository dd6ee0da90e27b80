"""Every SQL text that Plattr sends except the removals (`sql_removal.py`), composed and quoted by psycopg.

Utility statements take no bind parameters. So names go in as identifiers, and values as literals.
"""

from typing import LiteralString

from psycopg.sql import SQL, Composed, Identifier, Literal

from plattr.naming import RoleName, SchemaName

Statement = Composed

# All applications get CONNECT through one group role. A grant per application rewrites the database's single catalogue
# row, and fails with XX000 when several come at once (measured: 25 of 60 at 50 sessions).
APPLICATIONS_ROLE = "plattr_apps"

# Everything that reconcile_database compares, in one round trip; a row of plattr.database.DatabaseState.
# `set_privilege` is SET where the server knows it (16 and later), else MEMBER. `admin_privilege` is SET there too, else
# MEMBER WITH ADMIN OPTION, as `join_admin` grants it.
STATE = """
SELECT
    admin.rolsuper AS admin_is_superuser,
    ns.oid IS NOT NULL AS schema_exists,
    obj_description(ns.oid, 'pg_namespace') AS schema_comment,
    schema_owner.rolname AS schema_owner,
    shobj_description(ns.nspowner, 'pg_authid') AS schema_owner_comment,
    app.oid IS NOT NULL AS app_exists,
    shobj_description(app.oid, 'pg_authid') AS app_comment,
    coalesce(app.rolcanlogin, false) AS app_can_login,
    app.rolconnlimit AS app_connection_limit,
    coalesce('search_path=' || quote_ident(%(schema)s) = ANY (app.rolconfig), false) AS app_has_search_path,
    coalesce(pg_has_role(app.oid, anon.oid, %(set_privilege)s), false) AS app_can_become_anon,
    pg_group.oid IS NOT NULL AS group_exists,
    coalesce(pg_has_role(app.oid, pg_group.oid, 'USAGE'), false) AS app_is_in_group,
    coalesce(pg_has_role(app.oid, pg_group.oid, %(set_privilege)s), false) AS app_can_become_group,
    anon.oid IS NOT NULL AS anon_exists,
    shobj_description(anon.oid, 'pg_authid') AS anon_comment,
    coalesce(anon.rolcanlogin, false) AS anon_can_login,
    coalesce(pg_has_role(app.oid, 'USAGE') AND pg_has_role(app.oid, %(admin_privilege)s), false) AS admin_has_app,
    coalesce(pg_has_role(anon.oid, 'USAGE') AND pg_has_role(anon.oid, %(admin_privilege)s), false) AS admin_has_anon
FROM pg_roles AS admin
LEFT JOIN pg_namespace AS ns ON ns.nspname = %(schema)s
LEFT JOIN pg_roles AS schema_owner ON schema_owner.oid = ns.nspowner
LEFT JOIN pg_roles AS app ON app.rolname = %(app)s
LEFT JOIN pg_roles AS anon ON anon.rolname = %(anon)s
LEFT JOIN pg_roles AS pg_group ON pg_group.rolname = %(group)s
WHERE admin.rolname = current_user
"""

# Databases that every role may connect to. There a tenant can name another tenant's role, which then cannot be dropped.
OPEN_DATABASES = """
SELECT datname AS name FROM pg_database
WHERE datallowconn AND datname <> current_database() AND has_database_privilege('public', oid, 'CONNECT')
ORDER BY datname
"""

# How full the server and a role are. Connections that are reserved for others are no room for an application. The
# second reserve exists from 16 on.
ROOM = """
SELECT
    (SELECT count(*) FROM pg_stat_activity AS session WHERE session.usesysid = role.oid) AS role_sessions,
    role.rolconnlimit AS role_limit,
    (SELECT count(*) FROM pg_stat_activity AS session WHERE session.usesysid IS NOT NULL) AS sessions,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int AS server_limit,
    role.rolcanlogin AND has_database_privilege(role.oid, current_database(), 'CONNECT') AS may_connect
FROM pg_roles AS role WHERE role.rolname = %(role)s
"""


def create_login_role(role: RoleName, verifier: str, connections: int) -> Statement:
    """Return the statement that makes the app role; `verifier` is the password as SCRAM keeps it, never in plain."""
    return compose(
        "CREATE ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}",
        Identifier(role),
        Literal(connections),
        Literal(verifier),
    )


def limit_connections(role: RoleName, connections: int) -> Statement:
    """Return the statement that bounds how many sessions a role may have at once."""
    return compose("ALTER ROLE {} CONNECTION LIMIT {}", Identifier(role), Literal(connections))


def create_group_role(role: RoleName) -> Statement:
    """Return the statement that makes a role that cannot log in."""
    return compose("CREATE ROLE {} NOLOGIN", Identifier(role))


def set_login(role: str, *, allowed: bool) -> Statement:
    """Return the statement that lets a role log in, or keeps it out."""
    return compose("ALTER ROLE {} LOGIN" if allowed else "ALTER ROLE {} NOLOGIN", Identifier(role))


def set_password(role: RoleName, verifier: str) -> Statement:
    """Return the statement that gives a role its password and lifts its expiry, which looks like a wrong password."""
    return compose("ALTER ROLE {} PASSWORD {} VALID UNTIL 'infinity'", Identifier(role), Literal(verifier))


def set_search_path(role: RoleName, schema: SchemaName) -> Statement:
    """Return the statement that sets the search path of a role's sessions to their schema."""
    return compose("ALTER ROLE {} SET search_path TO {}", Identifier(role), Identifier(schema))


def comment_on_role(role: RoleName, comment: str) -> Statement:
    """Return the statement that records a role's owner."""
    return compose("COMMENT ON ROLE {} IS {}", Identifier(role), Literal(comment))


def comment_on_schema(schema: SchemaName, comment: str) -> Statement:
    """Return the statement that records a schema's owner."""
    return compose("COMMENT ON SCHEMA {} IS {}", Identifier(schema), Literal(comment))


def join_admin(role: str, *, has_options: bool) -> Statement:
    """Return the statement that lets the admin act as a role; the options exist from PostgreSQL 16 on.

    From 16 on, the creator of a role gets ADMIN alone, which is too little for AUTHORIZATION, REASSIGN and DROP OWNED.
    Before 16, the creator gets nothing, and needs no ADMIN. But after an upgrade only a superuser could grant him
    ADMIN, and without ADMIN he could neither change nor drop the role.
    """
    options = " WITH INHERIT TRUE, SET TRUE" if has_options else " WITH ADMIN OPTION"
    return compose(f"GRANT {{}} TO CURRENT_USER{options}", Identifier(role))


def grant_role(role: str, member: RoleName) -> Statement:
    """Return the statement that makes `member` a member of `role`."""
    return compose("GRANT {} TO {}", Identifier(role), Identifier(member))


def join_group(group: str, member: RoleName, *, has_options: bool) -> Statement:
    """Return the statement that gives `member` the group's privileges, but not the right to act as the group.

    A member that may SET ROLE to the group that all applications share can leave large objects there for others. Before
    16, a member cannot have the privileges without that right.
    """
    options = " WITH INHERIT TRUE, SET FALSE" if has_options else ""
    return compose(f"GRANT {{}} TO {{}}{options}", Identifier(group), Identifier(member))


def create_schema(schema: SchemaName, owner: RoleName) -> Statement:
    """Return the statement that makes a schema."""
    return compose("CREATE SCHEMA {} AUTHORIZATION {}", Identifier(schema), Identifier(owner))


def own_schema(schema: SchemaName, owner: RoleName) -> Statement:
    """Return the statement that gives a schema back to its role."""
    return compose("ALTER SCHEMA {} OWNER TO {}", Identifier(schema), Identifier(owner))


def reload_postgrest(channel: str) -> Statement:
    """Return the statement that makes the PostgREST of one application read its schema again."""
    return compose("NOTIFY {}, 'reload schema'", Identifier(channel))


def compose(text: LiteralString, *parts: Composed | Identifier | Literal) -> Statement:
    """Return the text with its placeholders filled in, quoted."""
    return SQL(text).format(*parts)
