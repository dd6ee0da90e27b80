"""The database step: a Secret with the password, a schema, and the two roles that use it."""

import secrets
from base64 import b64decode
from typing import Any

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.postgres import PostgresClient, Transaction
from activities.clients.resources import SECRETS, Json
from activities.loading import TargetLoader
from activities.ownership import ensure_adoptable, living_uid, remove_owned
from plattr import sql
from plattr.claims import Holding
from plattr.database import (
    RECORD_PREFIX,
    DatabaseState,
    Inventory,
    database_environment,
    locking_statements,
    missing_statements,
    record_beginning,
    refuse_foreign,
    removal_statements,
)
from plattr.errors import BackendRefused, Conflict, StillDeleting
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.manifests.secret import build_database_secret
from plattr.naming import roles_of
from plattr.objects import ObjectReference
from plattr.settings import Settings
from plattr.status import ConditionType, Finding
from plattr.steps import CleanupStepInput, StepInput, StepResult
from plattr.target import Target

# Source: shared/spec.md, section 3.
PASSWORD_BYTES = 32

_REMOVE = "remove the database"


class DatabaseActivities:
    """Make an owner's database what the spec says, or remove it."""

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

    @activity.defn
    async def delete_database(self, step: CleanupStepInput) -> StepResult:
        """Remove what the owner's comments name, then its Secret; what is missing already is success.

        Data that is retained stays, under the owner's record, and nobody can log in to it. The Secret goes all the
        same: the object made again gets a new password, and finds its data.

        Raises:
            BackendRefused: the admin lacks a right.
            BackendUnavailable: PostgreSQL or the API server cannot be reached.
            Conflict: a lock did not come free within 5 s.
            StillDeleting: something is left: a session that did not end, a Secret with a finalizer.
        """
        spared = await living_uid(self._kube, step)
        await self._lock_out(step.reference, spared)
        if not step.retain:
            await self._remove(step, spared)
        labels = {FEATURE_LABEL: "database"}
        await remove_owned(self._kube, step.reference, [SECRETS], spared_uid=spared, labels=labels)
        return StepResult()

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
        if not _has(existing, wanted):
            await self._kube.apply_owned(SECRETS, wanted, target.owner, namespace)
        return password

    async def _provision(self, target: Target, password: str) -> None:
        names = target.names
        action = f"provision schema {names.schema_name!r}"
        async with self._postgres.locked(target.owner.reference, action) as transaction:
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
        async with self._postgres.locked(reference, f"set the password of role {role!r}") as transaction:
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

    async def _lock_out(self, reference: ObjectReference, spared: str | None) -> None:
        """Keep the owner's roles out, in a transaction of its own, so that no new session comes; end the old ones."""
        async with self._postgres.locked(reference, _REMOVE) as transaction:
            inventory = (await _inventory(transaction, reference)).without(spared)
            await transaction.write(locking_statements(inventory, has_grant_options=transaction.has_grant_options))
        async with self._postgres.locked(reference, _REMOVE) as transaction:
            await transaction.call(sql.END_SESSIONS, roles=inventory.role_ids)
            await transaction.fetch(sql.FORGET_SESSIONS)
            [row] = await transaction.fetch(sql.COUNT_SESSIONS, roles=inventory.role_ids)
        if row["sessions"]:
            raise StillDeleting(f"cannot {_REMOVE} for {reference}: {row['sessions']} sessions have not ended yet")

    async def _remove(self, step: CleanupStepInput, spared: str | None) -> None:
        reference = step.reference
        while await self._unlink_large_objects(step, spared) == sql.LARGE_OBJECT_BATCH:
            pass
        async with self._postgres.locked(reference, _REMOVE) as transaction:
            inventory = await _doomed(transaction, step, spared)
            await transaction.write(removal_statements(inventory))
        async with self._postgres.locked(reference, _REMOVE) as transaction:
            left = await _doomed(transaction, step, spared)
        if left.schemas or left.roles:
            names = ", ".join(repr(name) for name in left.schema_names + left.role_names)
            raise StillDeleting(f"cannot {_REMOVE} for {reference}: {names} are still there")

    async def _unlink_large_objects(self, step: CleanupStepInput, spared: str | None) -> int:
        async with self._postgres.locked(step.reference, _REMOVE) as transaction:
            inventory = await _doomed(transaction, step, spared)
            [row] = await transaction.call(
                sql.UNLINK_LARGE_OBJECTS, roles=inventory.role_ids, batch=sql.LARGE_OBJECT_BATCH
            )
            return int(row["unlinked"])


async def _inventory(transaction: Transaction, reference: ObjectReference) -> Inventory:
    beginning = record_beginning(reference)
    schemas = await transaction.fetch(sql.OWNED_SCHEMAS, beginning=beginning, prefix=RECORD_PREFIX)
    roles = await transaction.fetch(sql.OWNED_ROLES, beginning=beginning)
    return Inventory.model_validate({"schemas": schemas, "roles": roles})


async def _doomed(transaction: Transaction, step: CleanupStepInput, spared: str | None) -> Inventory:
    """Return what a cleanup removes: neither what a living incarnation has, nor what is retained."""
    inventory = (await _inventory(transaction, step.reference)).without(spared)
    return inventory.without_names(
        schemas={claim.name for claim in step.outliving if claim.holding is Holding.SCHEMA},
        roles={role for claim in step.outliving if claim.holding is Holding.ROLES for role in roles_of(claim.name)},
    )


def _password_in(secret: Json) -> str | None:
    """Return the Secret's password; None when somebody took it out, or put in what no role could have."""
    password = b64decode(secret.get("data", {}).get("DB_PASSWORD", "")).decode(errors="replace")
    return password if password.isascii() and password.isprintable() and password else None


def _has(existing: Any, wanted: Any) -> bool:
    """Tell whether an object holds all that is wanted of it; what others added does not count."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(_has(existing.get(key), value) for key, value in wanted.items())
    return bool(existing == wanted)
