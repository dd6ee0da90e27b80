"""The end of a database: its roles locked out, then the schema, the roles and the Secret removed."""

from temporalio import activity

from activities.clients.kube import KubeClient
from activities.clients.postgres import PostgresClient, Transaction
from activities.clients.resources import SECRETS
from activities.ownership import living_uid, remove_owned
from plattr import sql_removal
from plattr.claims import Holding
from plattr.database import RECORD_PREFIX, record_beginning
from plattr.database_removal import Inventory, locking_statements, removal_statements
from plattr.errors import StillDeleting
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.naming import roles_of
from plattr.objects import ObjectReference
from plattr.steps import CleanupStepInput, StepResult

_REMOVE = "remove the database"


class DatabaseRemovalActivities:
    """Remove an owner's database."""

    def __init__(self, kube: KubeClient, postgres: PostgresClient) -> None:
        self._kube = kube
        self._postgres = postgres

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
        await self._postgres.forget(step.reference)
        return StepResult()

    async def _lock_out(self, reference: ObjectReference, spared: str | None) -> None:
        """Keep the owner's roles out, in a transaction of its own, so that no new session comes; end the old ones."""
        async with self._postgres.locked(reference, _REMOVE) as transaction:
            inventory = (await _inventory(transaction, reference)).without(spared)
            await transaction.write(locking_statements(inventory, has_grant_options=transaction.has_grant_options))
        async with self._postgres.locked(reference, _REMOVE) as transaction:
            await transaction.call(sql_removal.END_SESSIONS, roles=inventory.role_ids)
            await transaction.fetch(sql_removal.FORGET_SESSIONS)
            [row] = await transaction.fetch(sql_removal.COUNT_SESSIONS, roles=inventory.role_ids)
        if row["sessions"]:
            raise StillDeleting(f"cannot {_REMOVE} for {reference}: {row['sessions']} sessions have not ended yet")

    async def _remove(self, step: CleanupStepInput, spared: str | None) -> None:
        reference = step.reference
        while await self._unlink_large_objects(step, spared) == sql_removal.LARGE_OBJECT_BATCH:
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
                sql_removal.UNLINK_LARGE_OBJECTS, roles=inventory.role_ids, batch=sql_removal.LARGE_OBJECT_BATCH
            )
            return int(row["unlinked"])


async def _inventory(transaction: Transaction, reference: ObjectReference) -> Inventory:
    beginning = record_beginning(reference)
    schemas = await transaction.fetch(sql_removal.OWNED_SCHEMAS, beginning=beginning, prefix=RECORD_PREFIX)
    roles = await transaction.fetch(sql_removal.OWNED_ROLES, beginning=beginning)
    return Inventory.model_validate({"schemas": schemas, "roles": roles})


async def _doomed(transaction: Transaction, step: CleanupStepInput, spared: str | None) -> Inventory:
    """Return what a cleanup removes: neither what a living incarnation has, nor what is retained."""
    inventory = (await _inventory(transaction, step.reference)).without(spared)
    return inventory.without_names(
        schemas={claim.name for claim in step.outliving if claim.holding is Holding.SCHEMA},
        roles={role for claim in step.outliving if claim.holding is Holding.ROLES for role in roles_of(claim.name)},
    )
