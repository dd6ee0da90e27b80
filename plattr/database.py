"""An application's database: who owns it, how it differs from the spec, and what corrects the difference."""

import json
from urllib.parse import quote

from plattr import sql, sql_access
from plattr.marks import Estate, Mark, ensure_own
from plattr.objects import FrozenModel, Owner, owner_named
from plattr.settings import Settings
from plattr.sql_access import ACCESS_BATCH, Routine
from plattr.target import Target

# Every comment of ours begins so. Any other comment on a schema or role is somebody else's.
RECORD_PREFIX = "plattr:"


class DatabaseState(FrozenModel):
    """What the server holds under a target's names: the row that `sql.STATE` returns."""

    admin_is_superuser: bool
    schema_exists: bool
    schema_comment: str | None
    schema_owner: str | None
    schema_owner_comment: str | None
    app_exists: bool
    app_comment: str | None
    app_can_login: bool
    app_connection_limit: int | None
    app_has_search_path: bool
    app_can_become_anon: bool
    group_exists: bool
    app_is_in_group: bool
    app_can_become_group: bool
    anon_exists: bool
    anon_comment: str | None
    anon_can_login: bool
    admin_has_app: bool
    admin_has_anon: bool


class Pending(FrozenModel):
    """What of anon's access still has to be applied: the row that `sql_access.ACCESS` returns."""

    tables: tuple[str, ...] = ()
    routines: tuple[Routine, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing is left after this batch."""
        return max(len(self.tables), len(self.routines)) < ACCESS_BATCH


class Wanted(FrozenModel):
    """What is asked for in addition to the target's own fields."""

    verifier: str | None
    """The SCRAM form of the password; needed when the app role is missing."""
    connections: int
    """How many sessions the app role may have."""
    has_grant_options: bool
    """The server is PostgreSQL 16 or later."""


def owner_record(owner: Owner) -> str:
    """Return the comment that says whose a schema or role is."""
    # In this order, because a cleanup searches for the beginning of the record.
    return RECORD_PREFIX + json.dumps(
        {
            "cluster": owner.cluster,
            "owner": owner.reference.key,
            "namespaceUid": owner.namespace_uid,
            "uid": owner.uid,
        }
    )


def record_beginning(estate: Estate) -> str:
    """Return how every record of this owner begins, whatever its uid; no other owner's record begins so."""
    owner = Owner(reference=estate.reference, uid="", cluster=estate.cluster, namespace_uid=estate.namespace_uid or "")
    beginning = owner_record(owner).removesuffix('"}')
    return beginning if estate.namespace_uid is not None else beginning.removesuffix('", "uid": "')


def anon_record(target: Target) -> str:
    """Return the comment of the anon role: its owner, and which access was applied to which schema.

    Only a role's comment can say so: a schema's owner can write the schema's comment, but not a role's.
    """
    record = json.loads(owner_record(target.owner).removeprefix(RECORD_PREFIX))
    return RECORD_PREFIX + json.dumps(
        record | {"schema": target.names.schema_name, "access": target.spec.database.anon_access}
    )


def adopted_record(comment: str | None, owner: Owner) -> str:
    """Return the record of a new owner, with the old record's words about anon's access.

    Without these words the access would be applied again, and anon would regain what the schema's owner revoked.
    """
    record = json.loads(owner_record(owner).removeprefix(RECORD_PREFIX))
    texts = {field: _text_in(comment, field) for field in ("schema", "access")}
    return RECORD_PREFIX + json.dumps(record | {field: text for field, text in texts.items() if text is not None})


def is_access_due(state: DatabaseState, target: Target) -> bool:
    """Tell whether anon's access has to be applied: to new roles or schemas, or because the spec has changed.

    A difference on the server is no reason: what the owner revoked from anon, or granted to anon, stays.
    """
    return (
        not (state.app_exists and state.schema_exists)
        or recorded_schema(state.anon_comment) != target.names.schema_name
        or recorded_access(state.anon_comment) != target.spec.database.anon_access
    )


def closes_routines(state: DatabaseState, target: Target) -> bool:
    """Tell whether to close the functions that everybody may call now.

    They are closed once for a schema, and not again when the spec changes. What the owner opened afterwards stays open.
    """
    return not state.app_exists or recorded_schema(state.anon_comment) != target.names.schema_name


def recorded_schema(comment: str | None) -> str | None:
    """Return the schema to which access was applied last, by the anon role's comment."""
    return _text_in(comment, "schema")


def recorded_access(comment: str | None) -> str | None:
    """Return the access that was applied last, by the anon role's comment."""
    return _text_in(comment, "access")


def recorded_mark(comment: str | None) -> Mark | None:
    """Return the owner that a comment names; None when it is not a record of ours."""
    texts = [_text_in(comment, field) or "" for field in ("owner", "cluster", "namespaceUid", "uid")]
    key, cluster, namespace_uid, uid = texts
    return Mark(key=key, cluster=cluster, namespace_uid=namespace_uid, uid=uid) if key else None


def recorded_owner(comment: str | None) -> str | None:
    """Return how to call the owner that a comment names; None when it is not a record of ours."""
    mark = recorded_mark(comment)
    return owner_named(mark.key) if mark is not None else None


def _text_in(comment: str | None, field: str) -> str | None:
    if comment is None or not comment.startswith(RECORD_PREFIX):
        return None
    try:
        record = json.loads(comment.removeprefix(RECORD_PREFIX))
    except ValueError:
        return None
    text = record.get(field) if isinstance(record, dict) else None
    return text if isinstance(text, str) else None


def refuse_foreign(state: DatabaseState, target: Target) -> None:
    """Refuse what exists under the target's names and is not the target's own.

    Raises:
        OwnedElsewhere: the schema or a role belongs to somebody else, or no owner is recorded.
    """
    for what, comment in existing_records(state, target).items():
        ensure_own(what, recorded_mark(comment), target.owner)


def existing_records(state: DatabaseState, target: Target) -> dict[str, str | None]:
    """Return the comment that counts for each thing that exists under the target's names."""
    names = target.names
    # The owning role's record comes first, because the application itself can overwrite the schema's.
    schema_record = (
        state.schema_owner_comment if recorded_mark(state.schema_owner_comment) is not None else state.schema_comment
    )
    records = (
        (f"schema {names.schema_name!r}", state.schema_exists, schema_record),
        (f"role {names.app_role!r}", state.app_exists, state.app_comment),
        (f"role {names.anon_role!r}", state.anon_exists, state.anon_comment),
    )
    return {what: comment for what, exists, comment in records if exists}


def missing_statements(
    state: DatabaseState, target: Target, wanted: Wanted, pending: Pending | None
) -> list[sql.Statement]:
    """Return the statements that bring the server from `state` to the target; empty when nothing differs.

    Args:
        state: what the server holds, all of it the target's own.
        target: what is asked for.
        wanted: what is asked for in addition.
        pending: what of anon's access is to be applied now; None when none is due.
    """
    statements = [*_roles(state, target, wanted), *_schema(state, target)]
    if pending is not None:
        statements += _access(state, target, pending)
    record = anon_record(target)
    if pending is not None and not pending.is_whole:
        # The access is not applied completely yet. Meanwhile keep the record of what was applied before.
        record = state.anon_comment or owner_record(target.owner)
    if state.anon_comment != record:
        statements.append(sql.comment_on_role(target.names.anon_role, record))
    if state.group_exists and _lacks_group(state, wanted):
        # Last: from 16 on, this statement locks the group to the end of the transaction, and all applications share it.
        statements.append(
            sql.join_group(sql.APPLICATIONS_ROLE, target.names.app_role, has_options=wanted.has_grant_options)
        )
    return statements


def _roles(state: DatabaseState, target: Target, wanted: Wanted) -> list[sql.Statement]:
    app, anon = target.names.app_role, target.names.anon_role
    record, has_options = owner_record(target.owner), wanted.has_grant_options
    needed: list[tuple[bool, sql.Statement]] = [
        (not state.anon_exists, sql.create_group_role(anon)),
        (state.app_exists and not state.app_can_login, sql.set_login(app, allowed=True)),
        (
            state.app_exists and state.app_connection_limit != wanted.connections,
            sql.limit_connections(app, wanted.connections),
        ),
        (state.anon_can_login, sql.set_login(anon, allowed=False)),
        (state.app_comment != record, sql.comment_on_role(app, record)),
        # With createrole_self_grant set, the server has granted this already, and the statement changes nothing.
        (_lacks(state, has_it=state.admin_has_app), sql.join_admin(app, has_options=has_options)),
        (_lacks(state, has_it=state.admin_has_anon), sql.join_admin(anon, has_options=has_options)),
        (not state.app_has_search_path, sql.set_search_path(app, target.names.schema_name)),
        (not state.app_can_become_anon, sql.grant_role(anon, app)),
    ]
    statements = [statement for is_needed, statement in needed if is_needed]
    if not state.app_exists:
        if wanted.verifier is None:
            raise ValueError("a new role needs its password's verifier")
        statements.insert(0, sql.create_login_role(app, wanted.verifier, wanted.connections))
    return statements


def _lacks_group(state: DatabaseState, wanted: Wanted) -> bool:
    return not state.app_is_in_group or (wanted.has_grant_options and state.app_can_become_group)


def _lacks(state: DatabaseState, *, has_it: bool) -> bool:
    # A superuser may do everything already. Making it a member of each role would only be clutter.
    return not state.admin_is_superuser and not has_it


def _schema(state: DatabaseState, target: Target) -> list[sql.Statement]:
    schema, app = target.names.schema_name, target.names.app_role
    record = owner_record(target.owner)
    needed: list[tuple[bool, sql.Statement]] = [
        (not state.schema_exists, sql.create_schema(schema, app)),
        (state.schema_exists and state.schema_owner != app, sql.own_schema(schema, app)),
        (state.schema_comment != record, sql.comment_on_schema(schema, record)),
    ]
    return [statement for is_needed, statement in needed if is_needed]


def _access(state: DatabaseState, target: Target, pending: Pending) -> list[sql.Statement]:
    schema, app, anon = target.names.schema_name, target.names.app_role, target.names.anon_role
    if target.spec.database.anon_access == "read":
        statements = [sql_access.grant_usage(schema, anon), sql_access.grant_select_on_new_tables(schema, app, anon)]
        change_tables = sql_access.grant_select
    else:
        statements = [sql_access.revoke_usage(schema, anon), sql_access.revoke_select_on_new_tables(schema, app, anon)]
        change_tables = sql_access.revoke_select
    if pending.tables:
        statements.append(change_tables(schema, pending.tables, anon))
    if closes_routines(state, target):
        statements.append(sql_access.close_new_routines(app))
        if pending.routines:
            statements.append(sql_access.close_routines(schema, pending.routines))
    return statements


def database_environment(target: Target, settings: Settings, password: str, channel: str) -> dict[str, str]:
    """Return the keys of the database Secret, in plain text."""
    names = target.names
    host = f"[{settings.db_host}]" if ":" in settings.db_host else settings.db_host
    # Without the seed's ?search_path=, because libpq refuses a parameter that it does not know. Without options= too,
    # because RDS Proxy and some drivers refuse it. The role's own search_path leads to the schema.
    query = f"?sslmode={settings.db_sslmode}" if settings.db_sslmode is not None else ""
    url = (
        f"postgresql://{names.app_role}:{quote(password, safe='')}@{host}:{settings.db_port}"
        f"/{quote(settings.db_name, safe='')}{query}"
    )
    return {
        "DATABASE_URL": url,
        "DB_HOST": settings.db_host,
        "DB_PORT": str(settings.db_port),
        "DB_NAME": settings.db_name,
        "DB_USER": names.app_role,
        "DB_PASSWORD": password,
        "DB_SCHEMA": names.schema_name,
        "DB_CHANNEL": channel,
    }
