"""The database step: a Secret with the password, a schema, and the two roles that use it."""

import secrets
from base64 import b64decode

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.postgres import PostgresClient
from activities.clients.resources import SECRETS, Json
from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable, holds
from plattr import sql
from plattr.database import (
    DatabaseState,
    database_environment,
    missing_statements,
    refuse_foreign,
)
from plattr.errors import BackendRefused, Conflict, StillDeleting
from plattr.manifests.secret import build_database_secret
from plattr.settings import Settings
from plattr.status import ConditionType, Finding
from plattr.steps import StepInput, StepResult
from plattr.target import Target

# Source: shared/spec.md, section 3.
PASSWORD_BYTES = 32

# 200 ms: what is locked here is a catalogue row of the application's own, and nobody but its own sessions, or another
# attempt, writes there. It is tried again after a second; meanwhile others have use for the connection.
_PATIENCE = "200ms"


class DatabaseActivities:
    """Make an owner's database what the spec says."""

    def __init__(self, loader: TargetLoader, kube: KubeClient, postgres: PostgresClient, settings: Settings) -> None:
        self._loader = loader
        self._kube = kube
        self._postgres = postgres
        self._settings = settings

    @activity.defn
    async def reconcile_database(self, step: StepInput) -> StepResult:
        """Make the Secret, then schema and roles with the Secret's password; writes nothing that is so already.

        Raises:
            OwnedElsewhere: the Secret, the schema or a role is somebody else's; nothing of it was touched.
            BackendRefused: the admin lacks a right, or the server refuses the application's login.
            BackendUnavailable: PostgreSQL or the API server cannot be reached.
            Conflict: somebody else wrote at the same time.
        """
        target = await self._loader.load(step)
        # The Secret first: a role whose password nobody wrote down would be of no use to anybody.
        password = await self._secret_password(target)
        await self._provision(target, password)
        await self._agree_on_password(target, password)
        message = f"schema {target.names.schema_name!r} is ready"
        finding = Finding(type=ConditionType.DATABASE, status="True", reason="Provisioned", message=message)
        return StepResult(findings=(finding,))

    async def _secret_password(self, target: Target) -> str:
        """Return the password of the target's Secret, which is made, or brought up to date, before."""
        name, namespace = target.names.database_secret, target.names.namespace
        existing = await self._kube.get(SECRETS, name, namespace)
        if existing is None:
            password = secrets.token_hex(PASSWORD_BYTES)
            wanted = build_database_secret(target, database_environment(target, self._settings, password))
            # Create only: of two that come here at once one keeps its password, and both use that.
            if await self._kube.create(SECRETS, wanted, namespace) is not None:
                return password
            existing = await self._kube.get(SECRETS, name, namespace)
            if existing is None:
                raise Conflict(f"cannot create Secret {name!r} in namespace {namespace!r}: it comes and goes")
        ensure_adoptable(SECRETS, existing, target.owner)
        if "deletionTimestamp" in existing["metadata"]:
            raise StillDeleting(f"cannot use Secret {name!r} in namespace {namespace!r}: it is being deleted")
        password = _password_in(existing) or secrets.token_hex(PASSWORD_BYTES)
        wanted = build_database_secret(target, database_environment(target, self._settings, password))
        if not holds(existing, wanted):
            await self._kube.apply_owned(SECRETS, wanted, target.owner, namespace)
        return password

    async def _provision(self, target: Target, password: str) -> None:
        names = target.names
        action = f"provision schema {names.schema_name!r}"
        async with self._postgres.locked(target.owner.reference, action, patience=_PATIENCE) as transaction:
            rows = await transaction.fetch(
                sql.STATE,
                schema=names.schema_name,
                app=names.app_role,
                anon=names.anon_role,
                group=sql.APPLICATIONS_ROLE,
            )
            state = DatabaseState.model_validate(rows[0])
            refuse_foreign(state, target)
            verifier = None if state.app_exists else await transaction.verifier(names.app_role, password)
            statements = missing_statements(
                state, target, verifier=verifier, has_grant_options=transaction.has_grant_options
            )
            await transaction.write(statements)

    async def _agree_on_password(self, target: Target, password: str) -> None:
        """Log in as the application; if that fails give the role the Secret's password and try once more.

        Why the first login fails need not be known: giving the role the password it should have is never wrong.
        """
        role, reference = target.names.app_role, target.owner.reference
        if await self._postgres.login_failure(role, password) is None:
            return
        action = f"set the password of role {role!r}"
        async with self._postgres.locked(reference, action, patience=_PATIENCE) as transaction:
            secret = await self._kube.get(SECRETS, target.names.database_secret, target.names.namespace)
            # A Secret deleted meanwhile has another password by now, and another attempt may have set it.
            if secret is None or _password_in(secret) != password:
                raise Conflict(f"cannot set the password of role {role!r} for {reference}: its Secret changed")
            await transaction.write([sql.set_password(role, await transaction.verifier(role, password))])
        cause = await self._postgres.login_failure(role, password)
        if cause is not None:
            raise BackendRefused(
                f"cannot log in as role {role!r} for {reference}: {cause}; check pg_hba.conf and who may CONNECT to"
                f" database {self._settings.db_name!r}"
            )


def _password_in(secret: Json) -> str | None:
    """Return the Secret's password; None when somebody took it out, or put in what no role could have."""
    password = b64decode(secret.get("data", {}).get("DB_PASSWORD", "")).decode(errors="replace")
    return password if password.isascii() and password.isprintable() and password else None
