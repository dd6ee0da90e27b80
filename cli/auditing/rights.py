"""Rights in PostgreSQL beyond what Plattr grants: the admin's objects, memberships, attributes, open databases."""

import json
import re
from typing import Any

import psycopg

from cli.auditing.inventory import AuditProblem, Finding, Thing, ThingKind
from plattr.objects import owner_named

_PREFIX = "plattr:"
# The schema that the admin may own. It holds locks and heartbeats.
_PRIVATE = "plattr_private"
_GROUP = "plattr_apps"

_OWNED = """
SELECT owner.rolname, named.type, named.identity, database.datname, database.datname = current_database()
FROM pg_shdepend AS dependency
JOIN pg_roles AS owner ON owner.oid = dependency.refobjid
JOIN pg_database AS database ON database.oid = dependency.dbid
LEFT JOIN LATERAL pg_identify_object(dependency.classid, dependency.objid, dependency.objsubid) AS named
    ON database.datname = current_database()
WHERE dependency.refclassid = 'pg_authid'::regclass AND dependency.deptype = 'o'
    AND (owner.rolname = current_user OR owner.rolname = %(group)s)
    AND named.schema IS DISTINCT FROM %(private)s
    AND NOT (coalesce(named.type, '') = 'schema' AND named.name = %(private)s)
ORDER BY 1, 4, 2, 3
LIMIT 1000
"""
# Plattr itself grants an application's anon role to the application's role, and grants the shared group.
_MEMBERSHIPS = """
SELECT member.rolname, shobj_description(member.oid, 'pg_authid'), role.rolname,
    shobj_description(role.oid, 'pg_authid'), bool_or(membership.admin_option),
    -- A column that 15 does not know, where it cannot be withheld either.
    bool_or(coalesce((to_jsonb(membership) ->> 'set_option')::boolean, false))
FROM pg_auth_members AS membership
JOIN pg_roles AS member ON member.oid = membership.member
JOIN pg_roles AS role ON role.oid = membership.roleid
WHERE starts_with(shobj_description(member.oid, 'pg_authid'), %(prefix)s)
GROUP BY member.oid, member.rolname, role.oid, role.rolname
ORDER BY 1, 3
"""
_ATTRIBUTES = """
SELECT rolname, shobj_description(oid, 'pg_authid'),
    array_remove(ARRAY[
        CASE WHEN rolsuper THEN 'SUPERUSER' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN rolreplication THEN 'REPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
        CASE WHEN rolcanlogin AND rolname LIKE '%%\\_anon' THEN 'LOGIN' END,
        CASE WHEN rolcanlogin AND rolconnlimit < 0 THEN 'no CONNECTION LIMIT' END
    ], NULL)
FROM pg_roles WHERE starts_with(shobj_description(oid, 'pg_authid'), %(prefix)s)
ORDER BY 1
"""
_OPEN = """
SELECT datname FROM pg_database
WHERE datallowconn AND datname <> current_database() AND has_database_privilege('public', oid, 'CONNECT')
ORDER BY 1
"""


def findings(connection: psycopg.Connection[Any]) -> list[Finding]:
    """Return what is wrong, read through the admin's connection."""
    values = {"prefix": _PREFIX, "private": _PRIVATE, "group": _GROUP}
    return [
        *(_owned(*row) for row in connection.execute(_OWNED, values)),
        *(finding for row in connection.execute(_MEMBERSHIPS, values) if (finding := _membership(*row))),
        *(_power(*row) for row in connection.execute(_ATTRIBUTES, values) if row[2]),
        *(_open(*row) for row in connection.execute(_OPEN)),
    ]


def _owned(role: str, kind: str | None, identity: str | None, database: str, is_here: bool) -> Finding:
    name = _shown(f"{kind} {identity}") if is_here else "of a kind that only a session there can tell"
    thing = Thing(kind=ThingKind.SQL_OBJECT, scope=_shown(database), name=name)
    return Finding(problem=AuditProblem.ADMINS, thing=thing, owner="", detail=f"owned by role {_shown(role)}")


def _membership(
    member: str, record: str, role: str, of_role: str | None, is_admin: bool, may_act: bool
) -> Finding | None:
    is_given = role == _GROUP or (of_role is not None and _owner(of_role) == _owner(record) and role.endswith("_anon"))
    # Acting as the group that all applications share, an application could leave objects for others.
    acts_as_group = role == _GROUP and may_act
    if is_given and not is_admin and not acts_as_group:
        return None
    option = " WITH ADMIN OPTION" if is_admin else " WITH SET" if acts_as_group else ""
    thing = Thing(kind=ThingKind.ROLE, name=_shown(member))
    return Finding(
        problem=AuditProblem.MEMBER, thing=thing, owner=_owner(record), detail=f"of role {_shown(role)}{option}"
    )


def _power(role: str, record: str, attributes: list[str]) -> Finding:
    thing = Thing(kind=ThingKind.ROLE, name=_shown(role))
    return Finding(problem=AuditProblem.POWER, thing=thing, owner=_owner(record), detail=", ".join(attributes))


def _open(database: str) -> Finding:
    thing = Thing(kind=ThingKind.DATABASE, name=_shown(database))
    return Finding(problem=AuditProblem.OPEN, thing=thing, owner="", detail="CONNECT is PUBLIC's")


def _owner(record: str) -> str:
    try:
        mark = json.loads(record.removeprefix(_PREFIX)).get("owner")
    except (ValueError, AttributeError):
        mark = record
    return owner_named(mark) or ""


def _shown(text: str) -> str:
    """Return a name without characters that control a terminal. Somebody else chose the name."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:200]
