"""What an application's database looks like: who owns it, how it differs from the spec, and what brings it there."""

import json
from urllib.parse import quote

from plattr import sql
from plattr.marks import Estate, Mark, ensure_own
from plattr.objects import FrozenModel, Owner, owner_named
from plattr.settings import Settings
from plattr.target import Target

# Every comment of ours begins so; anything else on a schema or role is somebody else's.
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
    app_has_search_path: bool
    app_can_become_anon: bool
    group_exists: bool
    app_is_in_group: bool
    anon_exists: bool
    anon_comment: str | None
    anon_can_login: bool
    admin_has_app: bool
    admin_has_anon: bool
    anon_has_usage: bool
    anon_reads_new_tables: bool
    unreadable_tables: tuple[str, ...]


def owner_record(owner: Owner) -> str:
    """Return the comment that says whose a schema or role is."""
    # In this order: what a cleanup looks for stands first.
    return RECORD_PREFIX + json.dumps(
        {
            "cluster": owner.cluster,
            "owner": owner.reference.key,
            "namespaceUid": owner.namespace_uid,
            "uid": owner.uid,
        }
    )


def record_beginning(estate: Estate) -> str:
    """Return what the record of every incarnation of this owner begins with, and no other owner's does."""
    owner = Owner(reference=estate.reference, uid="", cluster=estate.cluster, namespace_uid=estate.namespace_uid or "")
    beginning = owner_record(owner).removesuffix('"}')
    return beginning if estate.namespace_uid is not None else beginning.removesuffix('", "uid": "')


def recorded_mark(comment: str | None) -> Mark | None:
    """Return the owner that a comment names; None when it is not a record of ours."""
    if comment is None or not comment.startswith(RECORD_PREFIX):
        return None
    try:
        record = json.loads(comment.removeprefix(RECORD_PREFIX))
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    texts = [record.get(field) for field in ("owner", "cluster", "namespaceUid", "uid")]
    key, cluster, namespace_uid, uid = (text if isinstance(text, str) else "" for text in texts)
    return Mark(key=key, cluster=cluster, namespace_uid=namespace_uid, uid=uid) if key else None


def recorded_owner(comment: str | None) -> str | None:
    """Return how to call the owner that a comment names; None when it is not a record of ours."""
    mark = recorded_mark(comment)
    return owner_named(mark.key) if mark is not None else None


def refuse_foreign(state: DatabaseState, target: Target) -> None:
    """Return when all that exists under the target's names is its own.

    Raises:
        OwnedElsewhere: the schema or a role belongs to somebody else, or nobody is recorded as its owner.
    """
    for what, comment in existing_records(state, target).items():
        ensure_own(what, recorded_mark(comment), target.owner)


def existing_records(state: DatabaseState, target: Target) -> dict[str, str | None]:
    """Return the comment that counts for each thing that exists under the target's names."""
    names = target.names
    # The owning role's record first: the application itself can overwrite the schema's.
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
    state: DatabaseState, target: Target, *, verifier: str | None, has_grant_options: bool
) -> list[sql.Statement]:
    """Return what brings the server from `state` to the target, in order; empty when nothing differs.

    A table whose SELECT was revoked from anon gets it back: row level security is the way to hide rows.

    Args:
        state: what the server holds, all of it the target's own.
        target: what is asked for.
        verifier: the SCRAM form of the password; needed when the app role is missing.
        has_grant_options: the server is PostgreSQL 16 or later.
    """
    statements = [*_roles(state, target, verifier, has_grant_options=has_grant_options), *_schema(state, target)]
    if statements:
        statements.append(sql.reload_postgrest())
    return statements


def _roles(
    state: DatabaseState, target: Target, verifier: str | None, *, has_grant_options: bool
) -> list[sql.Statement]:
    app, anon = target.names.app_role, target.names.anon_role
    record = owner_record(target.owner)
    needed: list[tuple[bool, sql.Statement]] = [
        (not state.anon_exists, sql.create_group_role(anon)),
        (state.app_exists and not state.app_can_login, sql.set_login(app, allowed=True)),
        (state.anon_can_login, sql.set_login(anon, allowed=False)),
        (state.app_comment != record, sql.comment_on_role(app, record)),
        (state.anon_comment != record, sql.comment_on_role(anon, record)),
        # With createrole_self_grant set the server has done it already, and this is a no-op.
        (_lacks(state, has_it=state.admin_has_app), sql.join_admin(app, has_options=has_grant_options)),
        (_lacks(state, has_it=state.admin_has_anon), sql.join_admin(anon, has_options=has_grant_options)),
        (not state.app_has_search_path, sql.set_search_path(app, target.names.schema_name)),
        (not state.app_can_become_anon, sql.grant_role(anon, app)),
        (state.group_exists and not state.app_is_in_group, sql.grant_role(sql.APPLICATIONS_ROLE, app)),
    ]
    statements = [statement for is_needed, statement in needed if is_needed]
    if not state.app_exists:
        if verifier is None:
            raise ValueError("a new role needs its password's verifier")
        statements.insert(0, sql.create_login_role(app, verifier))
    return statements


def _lacks(state: DatabaseState, *, has_it: bool) -> bool:
    # A superuser may do everything as it is; making it a member of each role would only be clutter.
    return not state.admin_is_superuser and not has_it


def _schema(state: DatabaseState, target: Target) -> list[sql.Statement]:
    schema, app, anon = target.names.schema_name, target.names.app_role, target.names.anon_role
    record = owner_record(target.owner)
    needed: list[tuple[bool, sql.Statement]] = [
        (not state.schema_exists, sql.create_schema(schema, app)),
        (state.schema_exists and state.schema_owner != app, sql.own_schema(schema, app)),
        (state.schema_comment != record, sql.comment_on_schema(schema, record)),
        (not state.anon_has_usage, sql.grant_usage(schema, anon)),
        (not state.anon_reads_new_tables, sql.grant_select_on_new_tables(schema, app, anon)),
    ]
    statements = [statement for is_needed, statement in needed if is_needed]
    if state.unreadable_tables:
        statements.append(sql.grant_select(schema, state.unreadable_tables, anon))
    return statements


def database_environment(target: Target, settings: Settings, password: str) -> dict[str, str]:
    """Return the keys of the database Secret, in plain text."""
    names = target.names
    host = f"[{settings.db_host}]" if ":" in settings.db_host else settings.db_host
    # Not the seed's ?search_path=: libpq refuses a parameter it does not know.
    url = (
        f"postgresql://{names.app_role}:{quote(password, safe='')}@{host}:{settings.db_port}"
        f"/{quote(settings.db_name, safe='')}?options=-csearch_path%3D{names.schema_name}"
    )
    return {
        "DATABASE_URL": url,
        "DB_HOST": settings.db_host,
        "DB_PORT": str(settings.db_port),
        "DB_NAME": settings.db_name,
        "DB_USER": names.app_role,
        "DB_PASSWORD": password,
        "DB_SCHEMA": names.schema_name,
    }
