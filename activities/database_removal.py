"""Remove a database: lock its roles out, drop what they have in bounded pieces, then remove the Secret."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from temporalio import activity

from activities.dropping import Dropping
from activities.ended_sessions import tell_of_sessions
from activities.ownership import find_live_uid, remove_owned
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.postgres import PostgresClient
from clients.resources import SECRETS
from plattr.database_removal import Dependent, held, owner_in
from plattr.manifests.metadata import FEATURE_LABEL
from plattr.retries import CLEANUP_BUDGET
from plattr.steps import CleanupStepInput, StepResult

logger = logging.getLogger(__name__)


class DatabaseRemovalActivities:
    """Remove an owner's database."""

    def __init__(
        self,
        kube: KubeClient,
        postgres: PostgresClient,
        events: EventRecorder,
        *,
        cleanup_budget: timedelta = CLEANUP_BUDGET,
    ) -> None:
        self._kube = kube
        self._postgres = postgres
        self._events = events
        self._cleanup_budget = cleanup_budget

    @activity.defn
    async def delete_database(self, step: CleanupStepInput) -> StepResult:
        """Remove what the owner's comments mark, then its Secret; what is missing already counts as removed.

        Retained data stays under the owner's record, and nobody can log in to it. The Secret goes even then: when the
        object is created again, it gets a new password and finds its data. When the time budget is used up, the result
        says not done: call again to continue.

        Raises:
            HeldByDependents: objects of others depend on what is to go, and nobody allowed their removal.
            BackendRefused: the admin lacks a right, or the server's lock table is too small.
            BackendUnavailable: PostgreSQL or the API server cannot be reached.
            Conflict: a lock did not come free within 5 s.
            StillDeleting: something is left, such as a session that did not end, or a Secret with a finalizer.
        """
        live_uid = await find_live_uid(self._kube, step)
        estate = step.estate(self._kube.cluster)
        dropping = Dropping(self._postgres, step, estate, live_uid, self._cleanup_budget)
        try:
            await dropping.lock_out()
            if not step.retain:
                await self._hold_or_tell(step, await dropping.dependents())
                if not await dropping.run():
                    return StepResult(is_done=False, waiting_for="what is left in the database to be dropped")
        finally:
            await tell_of_sessions(
                self._events,
                self._kube.cluster,
                dropping.ended,
                why=f"it held up the removal of the database of {step.reference}",
                message=f"a session held what names the database of {step.reference}, which is being removed, and was"
                " ended",
                except_for=step.reference,
            )
        labels = {FEATURE_LABEL: "database"}
        await remove_owned(self._kube, estate, [SECRETS], live_uid=live_uid, labels=labels)
        await self._postgres.forget(step.reference)
        return StepResult()

    async def _hold_or_tell(self, step: CleanupStepInput, dependents: Sequence[Dependent]) -> None:
        """Refuse the deletion if others would lose something; if they have no say, tell them what they lose."""
        holding = [dependent for dependent in dependents if dependent.holds]
        if holding and not step.cascade:
            raise held(step.reference, holding)
        without_right = [dependent for dependent in dependents if not dependent.holds]
        await self._tell(step, holding, "went with it, as an operator asked for")
        await self._tell(step, without_right, "had no right there, but an object id: it was ended")

    async def _tell(self, step: CleanupStepInput, dependents: Sequence[Dependent], what_becomes: str) -> None:
        # Tell the owners before the drop: two Events are better than none.
        for record in dict.fromkeys(dependent.record for dependent in dependents):
            theirs = [dependent for dependent in dependents if dependent.record == record]
            message = (
                f"{', '.join(dict.fromkeys(each.name for each in theirs[:10]))} depended on the database of"
                f" {step.reference} and {what_becomes}"
            )
            logger.warning("dependents removed", extra={"holder": theirs[0].holder, "note": message})
            owner = owner_in(record)
            # An object of another cluster is in another API server.
            if owner is not None and owner.cluster == self._kube.cluster:
                await self._events.record(owner, kind_of="Warning", reason="DependentsRemoved", message=message)
