"""The database step: a Secret with the password, a schema, and the two roles that use it."""

import logging
import re
import secrets
from base64 import b64decode
from dataclasses import dataclass

from temporalio import activity

from activities.ended_sessions import tell_of_sessions
from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable, holds
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.notifying import notify
from clients.postgres import PostgresClient
from clients.postgres_transaction import Transaction
from clients.resources import SECRETS, Json, is_deleting
from plattr import sql, sql_access
from plattr.connections import connections_of
from plattr.database import (
    DatabaseState,
    Pending,
    Wanted,
    closes_routines,
    database_environment,
    is_access_due,
    missing_statements,
    refuse_foreign,
)
from plattr.database_removal import Blocker
from plattr.errors import BackendRefused, BackendUnavailable, Conflict, StillDeleting
from plattr.features import ConditionType
from plattr.manifests.secret import build_database_secret
from plattr.settings import Settings
from plattr.sql_access import ACCESS_BATCH
from plattr.status import ConditionUpdate
from plattr.steps import StepInput, StepResult
from plattr.target import Target

logger = logging.getLogger(__name__)

# 256 bits: nobody can guess such a password.
PASSWORD_BYTES = 32

# 16 bytes: nobody can guess the channel of another application, and the name is short enough for an identifier.
CHANNEL_BYTES = 16
_CHANNEL_PREFIX = "plattr_"
_CHANNEL = re.compile(rf"{_CHANNEL_PREFIX}[0-9a-f]{{{2 * CHANNEL_BYTES}}}")

# 500 ms: the lock is on a catalogue row of the application, which only its own sessions or another attempt write.
# Or it is on the group that all applications share, which other runs hold for milliseconds. The next attempt comes
# after a second; until then others can use the connection.
_PATIENCE = "500ms"

_QUEUE_FULL = (
    "the server answers 54000: its queue of notifications is full, for a session that listens stays in its transaction;"
    " end the oldest one (pg_stat_activity.xact_start), then SELECT pg_notification_queue_usage()"
)


@dataclass(frozen=True)
class _Secret:
    """What only the database Secret holds."""

    password: str
    channel: str


class DatabaseActivities:
    """Bring an owner's database to its spec."""

    def __init__(
        self,
        loader: TargetLoader,
        kube: KubeClient,
        postgres: PostgresClient,
        events: EventRecorder,
        settings: Settings,
    ) -> None:
        self._loader = loader
        self._kube = kube
        self._postgres = postgres
        self._events = events
        self._settings = settings

    @activity.defn
    async def reconcile_database(self, step: StepInput) -> StepResult:
        """Make the Secret, then schema and roles with the Secret's password; write only what is missing.

        Raises:
            OwnedElsewhere: the Secret, the schema or a role belongs to another owner; it was not changed.
            BackendRefused: the admin lacks a right, or the server refuses the application's login.
            BackendUnavailable: PostgreSQL or the API server cannot be reached.
            Conflict: somebody else wrote at the same time.
        """
        target = await self._loader.load(step)
        # Write the Secret before the role: a password that is stored nowhere would be useless.
        secret = await self._secret(target)
        notes = [*await self._provision(target, secret), await self._agree_on_password(target, secret.password)]
        message = "; ".join([f"schema {target.names.schema_name!r} is ready", *filter(None, notes)])
        update = ConditionUpdate(type=ConditionType.DATABASE, status="True", reason="Provisioned", message=message)
        return StepResult(updates=(update,))

    async def _secret(self, target: Target) -> _Secret:
        """Return what the target's Secret holds, after creating or updating the Secret."""
        name, namespace = target.names.database_secret, target.names.namespace
        existing = await self._kube.get(SECRETS, name, namespace)
        if existing is None:
            values = _Secret(secrets.token_hex(PASSWORD_BYTES), _new_channel())
            # Create, never overwrite: if two attempts race, one password is kept and both use that password.
            if await self._kube.create(SECRETS, self._manifest(target, values), namespace) is not None:
                return values
            existing = await self._kube.get(SECRETS, name, namespace)
            if existing is None:
                raise Conflict(f"cannot create Secret {name!r} in namespace {namespace!r}: it comes and goes")
        ensure_adoptable(SECRETS, existing, target.owner)
        if is_deleting(existing):
            raise StillDeleting(f"cannot use Secret {name!r} in namespace {namespace!r}: it is being deleted")
        values = _Secret(
            _password_in(existing) or secrets.token_hex(PASSWORD_BYTES), _channel_in(existing) or _new_channel()
        )
        wanted = self._manifest(target, values)
        if not holds(existing, wanted):
            await self._kube.apply_owned(SECRETS, wanted, target.owner, namespace)
        return values

    def _manifest(self, target: Target, values: _Secret) -> Json:
        environment = database_environment(target, self._settings, values.password, values.channel)
        return build_database_secret(target, environment)

    async def _provision(self, target: Target, secret: _Secret) -> list[str]:
        """Make schema and roles; return what the developer should know about them, as parts of a sentence."""
        names = target.names
        # An earlier attempt may have died after its commit. Then nothing else would notify PostgREST.
        has_changed = activity.in_activity() and activity.info().attempt > 1
        action = f"provision schema {names.schema_name!r}"
        while True:
            async with self._postgres.locked(target.owner.reference, action, patience=_PATIENCE) as transaction:
                is_whole, has_written = await self._bring_about(transaction, target, secret)
                [closed] = await transaction.fetch(
                    sql_access.CLOSED_ROUTINES, schema=names.schema_name, app=names.app_role, anon=names.anon_role
                )
            has_changed = has_changed or has_written
            if is_whole:
                untold = await self._tell_postgrest(target, secret.channel) if has_changed else ""
                return [_of_routines(target, closed["count"], closed["names"]), untold]

    async def _tell_postgrest(self, target: Target, channel: str) -> str:
        """Make PostgREST read its schema again, after the commit; return why that failed, usually nothing.

        Any application can fill the server's notification queue. Provisioning does not depend on the notification, so
        a failure is only reported. The next change tells PostgREST about this change too.
        """
        ended: list[Blocker] = []
        try:
            cause = "" if await notify(self._postgres, channel, ended) else _QUEUE_FULL
        except (BackendRefused, BackendUnavailable, Conflict) as error:
            cause = str(error)
        finally:
            await tell_of_sessions(
                self._events,
                self._kube.cluster,
                ended,
                why="it kept the server's queue of notifications from being emptied",
                message="a session that had listened (LISTEN) stayed in its transaction until the server had no room"
                " for more notifications, and was ended with its role's other transactions",
            )
        if not cause:
            return ""
        reference = target.owner.reference
        logger.warning("PostgREST was not told of a change", extra={"object": reference.key, "cause": cause})
        return f"its PostgREST was not told of the change, and sees it after a restart of its pods: {cause}"

    async def _bring_about(self, transaction: Transaction, target: Target, secret: _Secret) -> tuple[bool, bool]:
        """Write what is missing; return whether nothing is left, and whether anything was written."""
        names = target.names
        roles = {"schema": names.schema_name, "app": names.app_role, "anon": names.anon_role}
        rows = await transaction.fetch(sql.STATE, group=sql.APPLICATIONS_ROLE, **roles)
        state = DatabaseState.model_validate(rows[0])
        refuse_foreign(state, target)
        pending = None
        if is_access_due(state, target):
            found = await transaction.fetch(
                sql_access.ACCESS,
                reads=target.spec.database.anon_access == "read",
                closes=closes_routines(state, target),
                batch=ACCESS_BATCH,
                **roles,
            )
            # No row: the schema or a role does not exist yet, so there is nothing to open or close.
            pending = Pending.model_validate(found[0]) if found else Pending()
        wanted = Wanted(
            verifier=None if state.app_exists else await transaction.verifier(names.app_role, secret.password),
            connections=connections_of(target.spec.scaling, self._settings).limit,
            has_grant_options=transaction.has_grant_options,
        )
        statements = missing_statements(state, target, wanted, pending)
        await transaction.write(statements)
        return pending is None or pending.is_whole, bool(statements)

    async def _agree_on_password(self, target: Target, password: str) -> str:
        """Log in as the application; if the password is wrong, give the role the Secret's and log in once more.

        It is never wrong to set the Secret's password. But a server without free connections does not tell whether the
        password is right.

        Returns:
            What keeps the application's sessions out although its password is right; usually nothing.
        """
        role, reference = target.names.app_role, target.owner.reference
        failure = await self._postgres.login_failure(role, password)
        if failure is not None and failure.is_password:
            await self._set_password(target, password)
            failure = await self._postgres.login_failure(role, password)
        if failure is None:
            return ""
        action = f"log in as role {role!r} for {reference}"
        if failure.is_password:
            raise BackendRefused(f"cannot {action}: {failure.cause}; check pg_hba.conf")
        room = await self._postgres.room(role)
        if room.is_role_full:
            # The password is right, and everything that Plattr makes exists. The application itself fills its role.
            return (
                f"all {room.role_limit} connections of role {role!r} are in use, and more are refused: close some, or"
                " raise spec.scaling.max, or ask for a higher DB_CONNECTIONS_PER_POD or DB_CONNECTIONS_MAX"
            )
        if room.is_server_full:
            raise BackendUnavailable(
                f"cannot {action}: {failure.cause}; the password is right, but {room.sessions} of the server's"
                f" {room.server_limit} connections for applications are in use: end some, or raise max_connections"
            )
        if room.may_connect:
            raise BackendUnavailable(f"cannot {action}: {failure.cause}; the password is right")
        raise BackendRefused(
            f"cannot {action}: {failure.cause}; check who may CONNECT to database {self._settings.db_name!r}"
        )

    async def _set_password(self, target: Target, password: str) -> None:
        role, reference = target.names.app_role, target.owner.reference
        action = f"set the password of role {role!r}"
        async with self._postgres.locked(reference, action, patience=_PATIENCE) as transaction:
            secret = await self._kube.get(SECRETS, target.names.database_secret, target.names.namespace)
            # If the Secret was deleted, the new one has another password, and another attempt may have set it.
            if secret is None or _password_in(secret) != password:
                raise Conflict(f"cannot {action} for {reference}: its Secret changed")
            await transaction.write([sql.set_password(role, await transaction.verifier(role, password))])


def _of_routines(target: Target, count: int, names: list[str]) -> str:
    if not count or target.spec.database.anon_access != "read":
        return ""
    listed = ", ".join(names) + (", ..." if names and count > len(names) else "")
    return (
        f"anon may not call {count} of its functions" + (f" ({listed})" if listed else "") + ": GRANT EXECUTE opens one"
    )


def _new_channel() -> str:
    return f"{_CHANNEL_PREFIX}{secrets.token_hex(CHANNEL_BYTES)}"


def _channel_in(secret: Json) -> str | None:
    """Return the Secret's channel; None if Plattr did not make it, because the channel goes into an SQL text."""
    channel = b64decode(secret.get("data", {}).get("DB_CHANNEL", "")).decode(errors="replace")
    return channel if _CHANNEL.fullmatch(channel) else None


def _password_in(secret: Json) -> str | None:
    """Return the Secret's password; None when somebody removed it, or wrote one that no role can have."""
    password = b64decode(secret.get("data", {}).get("DB_PASSWORD", "")).decode(errors="replace")
    return password if password.isascii() and password.isprintable() and password else None
