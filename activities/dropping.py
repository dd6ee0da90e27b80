"""Drop what one owner has in PostgreSQL: in short transactions with few locks, and nothing that others own.

Each transaction reads what is left, so any attempt continues where another attempt ended.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from activities.polling import time_is_up
from clients.blockers import ending_blockers
from clients.postgres import PostgresClient
from clients.postgres_transaction import Transaction
from plattr import sql_dependents, sql_removal
from plattr.backends import Backend, of_backend
from plattr.database import RECORD_PREFIX, record_beginning
from plattr.database_removal import (
    NAMED_AT_MOST,
    Blocker,
    Candidate,
    Dependent,
    Inventory,
    Piece,
    Place,
    chosen,
    drop_statements,
    emptying_statements,
    held,
    lock_statements,
    locking_statements,
    role_statements,
    shut,
    thing_named,
)
from plattr.errors import BackendRefused, Conflict, StillDeleting
from plattr.features import ClaimKind
from plattr.marks import Estate
from plattr.naming import roles_of
from plattr.sql_dependents import CANDIDATES_AT_ONCE, DEPENDENTS_MOST
from plattr.sql_removal import LOCKS_AT_ONCE
from plattr.steps import CleanupStepInput

_REMOVE = "remove the database"
# Each of these statements locks one table, the owner's or another owner's, and what depends on that table.
STATEMENTS_AT_ONCE = 50


class Dropping:
    """One attempt to drop what a cleanup removes.

    A place is a database of the server. None stands for Plattr's own database.
    """

    def __init__(
        self,
        postgres: PostgresClient,
        step: CleanupStepInput,
        estate: Estate,
        live_uid: str | None,
        budget: timedelta,
    ) -> None:
        self._postgres = postgres
        self._estate = estate
        self._step = step
        self._live_uid = live_uid
        self._is_over = time_is_up(budget)
        # The objects that are too large for one transaction, and whether any drop succeeded since they were found.
        self._heavy: set[int] = set()
        self._has_dropped = False
        self._taken_back: set[str] = set()
        # Others' objects that refer by object id alone: those too large, and those already dropped or left to CASCADE.
        self._heavy_by_id: set[int] = set()
        self._left_by_id: set[int] = set()
        self._is_one_by_one = False
        self.ended: list[Blocker] = []
        """Sessions of others that blocked this attempt and were ended."""

    async def lock_out(self) -> None:
        """Lock the owner's roles out so that no new session starts, then end their sessions.

        The lockout has a transaction of its own.
        """
        reference = self._step.reference
        async with self._open() as transaction:
            inventory = (await self._inventory(transaction)).without(self._live_uid)
            await transaction.write(locking_statements(inventory, has_grant_options=transaction.has_grant_options))
        async with self._open() as transaction:
            await transaction.call(sql_removal.END_SESSIONS, roles=inventory.role_ids)
            await transaction.fetch(sql_removal.FORGET_SESSIONS)
            [row] = await transaction.fetch(sql_removal.COUNT_SESSIONS, roles=inventory.role_ids)
        if row["sessions"]:
            raise StillDeleting(f"cannot {_REMOVE} for {reference}: {row['sessions']} sessions have not ended yet")

    async def dependents(self) -> list[Dependent]:
        """Return others' objects that depend on what is to be dropped, before anything is dropped."""
        async with self._open() as transaction:
            inventory = await self._to_delete(transaction)
            return [] if inventory.is_empty else await self._dependents(transaction, inventory)

    async def run(self) -> bool:
        """Drop everything; return False when the time is up and something is left."""
        if not await self._empty(None):
            return False
        async with self._open() as transaction:
            inventory = await self._to_delete(transaction)
            elsewhere = await transaction.fetch(sql_removal.OTHER_DATABASES, roles=inventory.role_ids)
        for place in map(Place.model_validate, elsewhere):
            if not (place.is_open and place.may_connect):
                raise shut(self._step.reference, place)
            if not await self._empty(place.name):
                return False
            await self._finish(place.name)
        await self._finish(None)
        async with self._open() as transaction:
            left = await self._to_delete(transaction)
        if not left.is_empty:
            names = ", ".join(repr(name) for name in left.schema_names + left.role_names)
            raise StillDeleting(f"cannot {_REMOVE} for {self._step.reference}: {names} are still there")
        return True

    async def _empty(self, place: str | None) -> bool:
        """Drop what may be too large for one transaction; return False when the time is up."""
        for drop in (
            self._end_strangers,
            self._leave_what_has_no_schema,
            self._drop_some_by_id,
            self._drop_some,
            self._take_back_some,
        ):
            while await drop(place):
                if self._is_over():
                    return False
        return True

    async def _end_strangers(self, place: str | None) -> bool:
        """End the sessions of applications in a database that is not theirs.

        Such sessions would only grant the revoked privileges again.
        """
        if place is not None:
            async with self._open(place) as transaction:
                rows = await transaction.call(sql_removal.END_STRANGERS, prefix=RECORD_PREFIX)
            self.ended += map(Blocker.model_validate, rows)
        return False

    async def _leave_what_has_no_schema(self, place: str | None) -> bool:
        """Unlink the roles' large objects, and remove the roles from the policies of others."""
        async with self._open(place) as transaction:
            inventory = await self._to_delete(transaction, place)
            query, roles = sql_removal.UNLINK_LARGE_OBJECTS, inventory.role_ids
            [row] = await transaction.call(query, roles=roles, batch=LOCKS_AT_ONCE)
            has_written = await _write_of_server(transaction, sql_removal.POLICIES, roles=roles)
            return has_written or bool(row["unlinked"] == LOCKS_AT_ONCE)

    async def _drop_some_by_id(self, place: str | None) -> bool:
        """Drop some objects that refer to the owner's objects by object id alone.

        An object without a DROP statement goes by CASCADE, together with the object that it refers to.

        Raises:
            HeldByDependents: only objects that are too large for one transaction are left.
        """
        some: list[Piece] = []
        try:
            async with self._open(place) as transaction:
                inventory = await self._to_delete(transaction, place)
                pieces = await self._pieces_by_id(transaction, inventory)
                some = chosen(pieces, locks=LOCKS_AT_ONCE)[: 1 if self._is_one_by_one else None]
                await transaction.write([statement for piece in some for statement in piece.drop])
        except BackendRefused:
            if not some:
                raise
            # Drop one at a time to find the object that the server refuses to drop. CASCADE removes that object too.
            self._left_by_id |= {piece.object_id for piece in some if self._is_one_by_one}
            self._is_one_by_one = True
            return True
        if some:
            # The heavy objects may be light now, because some of their dependents are gone.
            self._heavy_by_id = set()
            self._left_by_id |= {piece.object_id for piece in some}
        else:
            self._heavy_by_id |= {piece.object_id for piece in pieces}
        if pieces:
            return True
        if self._heavy_by_id and not self._step.cascade:
            async with self._open(place) as transaction:
                dependents = await self._dependents(transaction, await self._to_delete(transaction, place))
            raise held(self._step.reference, dependents)
        return False

    async def _pieces_by_id(self, transaction: Transaction, inventory: Inventory) -> list[Piece]:
        rows = await transaction.fetch(
            sql_dependents.PIECES_BY_ID,
            roles=inventory.role_ids,
            schemas=inventory.schema_ids,
            skipped=[*self._heavy_by_id, *self._left_by_id],
            most=CANDIDATES_AT_ONCE,
            bound=LOCKS_AT_ONCE + 1,
        )
        return [Piece.model_validate(row) for row in rows]

    async def _drop_some(self, place: str | None) -> bool:
        """Drop as many objects as one transaction may; return False when no object with a DROP statement is left."""
        async with self._open(place) as transaction:
            inventory = await self._to_delete(transaction, place)
            candidates = await self._candidates(transaction, inventory, skipped=list(self._heavy))
            self._heavy |= {each.object_id for each in candidates if each.locks > LOCKS_AT_ONCE}
            some = chosen(candidates, locks=LOCKS_AT_ONCE)
            if some:
                await self._drop(transaction, inventory, some)
                self._has_dropped = True
                # Look again only when more objects may be left.
                return len(candidates) == CANDIDATES_AT_ONCE or len(some) < len(candidates) or bool(self._heavy)
            if not candidates and not self._heavy:
                return False
            if not candidates and self._has_dropped:
                # The heavy objects may be light now, because objects that depended on them are gone.
                self._heavy, self._has_dropped = set(), False
            elif not candidates:
                await self._lighten(transaction, inventory)
            return True

    async def _take_back_some(self, place: str | None) -> bool:
        """Revoke some of the privileges that grantees granted on to the roles.

        Dropped objects need no revocation, so this comes after the drops.
        """
        async with self._open(place) as transaction:
            done = await _take_back(transaction, await self._to_delete(transaction, place))
        # A privilege that somebody grants again and again must not prolong this loop. _finish revokes it too.
        fresh = done - self._taken_back
        self._taken_back |= fresh
        return bool(fresh)

    async def _lighten(self, transaction: Transaction, inventory: Inventory) -> None:
        """Remove parts of one object that is too large for a transaction, or drop the object as it is."""
        candidates = await self._candidates(transaction, inventory, skipped=[], most=1)
        if not candidates:
            # Another attempt has dropped them already.
            self._heavy = set()
            return
        [heavy] = candidates
        parts = {"table": heavy.object_id, "roles": inventory.role_ids}
        await transaction.write(lock_statements([heavy]))
        await self._ensure_free(transaction, inventory, [heavy])
        if not (heavy.is_lockable and await _write_of_server(transaction, sql_removal.PARTS, **parts)):
            await transaction.write(drop_statements([heavy]))
        self._has_dropped = True

    async def _drop(self, transaction: Transaction, inventory: Inventory, some: list[Candidate]) -> None:
        # Lock the objects before looking for dependents. Nobody can create a view of a locked table.
        await transaction.write(lock_statements(some))
        await self._ensure_free(transaction, inventory, some)
        await transaction.write(drop_statements(some))

    async def _finish(self, place: str | None) -> None:
        """Drop the few remaining objects, and in Plattr's own database the schemas and roles."""
        async with self._open(place) as transaction:
            inventory = await self._to_delete(transaction, place)
            if inventory.is_empty:
                return
            dependents = await self._dependents(transaction, inventory)
            self._ensure_none_holds(dependents)
            # Revoke privileges that were granted after the previous transaction.
            await _take_back(transaction, inventory)
            rows = await transaction.fetch(sql_removal.OCCUPIED_SCHEMAS, schemas=inventory.schema_ids)
            occupied = {row["oid"] for row in rows}
            statements = emptying_statements(
                inventory, occupied=occupied, cascade=self._step.cascade or bool(dependents)
            )
            await transaction.write(statements)
            holders = await transaction.fetch(sql_removal.HOLDERS, roles=inventory.role_ids, most=DEPENDENTS_MOST)
            if holders:
                things = ", ".join(thing_named(row["kind"], row["identity"]) for row in holders[:NAMED_AT_MOST])
                raise BackendRefused(
                    f"cannot {_REMOVE} for {self._step.reference}: {', '.join(inventory.role_names)} is still named by"
                    f" {things}; have whoever granted it revoke it"
                )
            if place is None:
                await transaction.write(role_statements(inventory))

    async def _candidates(
        self, transaction: Transaction, inventory: Inventory, *, skipped: list[int], most: int = CANDIDATES_AT_ONCE
    ) -> list[Candidate]:
        rows = await transaction.fetch(
            sql_dependents.CANDIDATES,
            roles=inventory.role_ids,
            schemas=inventory.schema_ids,
            skipped=skipped,
            most=most,
            bound=LOCKS_AT_ONCE + 1,
        )
        return [Candidate.model_validate(row) for row in rows]

    async def _ensure_free(self, transaction: Transaction, inventory: Inventory, some: list[Candidate]) -> None:
        """Return when no object of others holds these objects, which the transaction drops next.

        Raises:
            HeldByDependents: an object of others does. It was made after this attempt began.
        """
        if not self._step.cascade:
            self._ensure_none_holds(await self._dependents(transaction, inventory, some))

    def _ensure_none_holds(self, dependents: Sequence[Dependent]) -> None:
        holding = [each for each in dependents if each.holds]
        if holding and not self._step.cascade:
            raise held(self._step.reference, holding)

    async def _dependents(
        self, transaction: Transaction, inventory: Inventory, some: list[Candidate] | None = None
    ) -> list[Dependent]:
        query, seeds = sql_dependents.DEPENDENTS, {}
        if some is not None:
            query = sql_dependents.DEPENDENTS_OF_CHOSEN
            seeds = {"classes": [each.class_id for each in some], "objects": [each.object_id for each in some]}
        rows = await transaction.fetch(
            query,
            roles=inventory.role_ids,
            schemas=inventory.schema_ids,
            prefix=RECORD_PREFIX,
            beginning=record_beginning(self._estate),
            most=DEPENDENTS_MOST,
            **seeds,
        )
        return [Dependent.model_validate(row) for row in rows]

    async def _inventory(self, transaction: Transaction) -> Inventory:
        beginning = record_beginning(self._estate)
        schemas = await transaction.fetch(sql_removal.OWNED_SCHEMAS, beginning=beginning, prefix=RECORD_PREFIX)
        roles = await transaction.fetch(sql_removal.OWNED_ROLES, beginning=beginning)
        return Inventory.model_validate({"schemas": schemas, "roles": roles})

    async def _to_delete(self, transaction: Transaction, place: str | None = None) -> Inventory:
        """Return what the cleanup removes: neither what the live object has, nor what is retained.

        In another database this is what the roles own. Roles are the same in every database of a server.
        """
        step = self._step
        inventory = (await self._inventory(transaction)).without(self._live_uid)
        to_delete = inventory.without_names(
            schemas={claim.name for claim in step.outliving if claim.kind is ClaimKind.SCHEMA},
            roles={role for claim in step.outliving if claim.kind is ClaimKind.ROLES for role in roles_of(claim.name)},
        )
        return to_delete if place is None else to_delete.model_copy(update={"schemas": ()})

    @asynccontextmanager
    async def _open(self, place: str | None = None) -> AsyncIterator[Transaction]:
        """Open a transaction, and end the sessions of applications that keep it waiting.

        Raises:
            Conflict: the client raised it. The message also names the sessions that kept the transaction waiting.
        """
        if place is None:
            opening = self._postgres.locked(self._step.reference, _REMOVE)
        else:
            opening = self._postgres.elsewhere(place, f"{_REMOVE} for {self._step.reference}")
        seen: list[Blocker] = []
        try:
            async with opening as transaction, ending_blockers(self._postgres, transaction.pid, seen):
                yield transaction
        except Conflict as error:
            holders = dict.fromkeys(f"{blocker.holder} (pid {blocker.pid})" for blocker in seen if not blocker.ended)
            if not holders:
                raise
            raise of_backend(Backend.POSTGRESQL, Conflict(f"{error}; it waited for {', '.join(holders)}")) from None
        finally:
            self.ended += [blocker for blocker in seen if blocker.ended]


async def _write_of_server(transaction: Transaction, query: str, **parameters: object) -> bool:
    """Run some of the statements that a query generates; tell whether there were any."""
    rows = await transaction.fetch(query, most=STATEMENTS_AT_ONCE, **parameters)
    await transaction.write([sql_removal.of_server(row["statement"]) for row in rows])
    return bool(rows)


async def _take_back(transaction: Transaction, inventory: Inventory) -> set[str]:
    """Revoke some of the privileges that grantees granted on to the roles; return a text for each revocation."""
    rows = await transaction.fetch(sql_removal.REGRANTS, roles=inventory.role_ids, most=STATEMENTS_AT_ONCE)
    for row in rows:
        await transaction.write(sql_removal.revocation(row["grantor"], row["statement"], row["doors"]))
    return {f"{row['grantor']}: {row['statement']}" for row in rows}
