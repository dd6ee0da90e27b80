"""The last step of a cleanup: release the names, then remove the finalizer."""

from collections.abc import Sequence

from temporalio import activity

from activities.families import Families
from activities.observation import gone_workload
from activities.ownership import find_live_uid
from activities.status import conditions_of, with_conditions
from clients.claim_store import ClaimStore
from clients.events import EventRecorder
from clients.kube import KubeClient
from clients.resources import Json, custom_resource
from plattr.claims import HeldClaim, is_data
from plattr.objects import FINALIZER, CustomObject
from plattr.status import Condition, ConditionUpdate, Phase
from plattr.steps import CleanupStepInput, StatusInput, StatusResult, StepResult


class ReleaseActivities:
    """End a cleanup, or say why it does not end."""

    def __init__(self, kube: KubeClient, claim_store: ClaimStore, events: EventRecorder) -> None:
        self._kube = kube
        self._claim_store = claim_store
        self._events = events
        self._families = Families(kube, claim_store)

    @activity.defn
    async def release_object(self, step: CleanupStepInput) -> StepResult:
        """Release the owner's names, then remove Plattr's finalizer and no other; a second run does nothing.

        A name with a lost call goes into quarantine; the result says when to look again.

        Raises:
            Conflict: the object or a claim changed during this attempt.
        """
        estate = step.estate(self._kube.cluster)
        live_uid = await find_live_uid(self._kube, step)
        held = [claim for claim in await self._claim_store.held_by(estate) if claim.owner.uid != live_uid]
        kept = [each for each in held if _is_kept(each, step)]
        await self._mark_retained(kept)
        end = await self._claim_store.release(estate, [claim.claim for claim in held if claim not in kept])
        await self._families.pass_on(step.reference)
        if live_uid is None:
            await self._claim_store.stop_waiting(step.reference)
        # Remove the finalizer last: without it, nothing would trigger the rest of the cleanup.
        await self._remove_finalizer(step)
        return StepResult(look_again_at=end)

    @activity.defn
    async def report_stuck(self, status: StatusInput) -> StatusResult:
        """Write to the status why the deletion makes no progress, and what is gone already; other conditions stay.

        An Event reports only failures, not what merely takes time.

        Raises:
            Conflict: the object changed during this attempt.
        """
        resource, reference = custom_resource(status.reference.kind), status.reference
        body = await self._kube.get(resource, reference.name, reference.namespace)
        result = StatusResult(phase=Phase.TERMINATING, is_written=False)
        if body is None:
            return result
        custom_object = CustomObject.from_api(reference.kind, body)
        if not custom_object.is_deleting or status.uid not in ("", custom_object.metadata.uid):
            return result
        for update in status.updates if status.retries_exhausted else ():
            await self._events.record(
                custom_object.owner,
                kind_of="Warning",
                reason="DeletionStuck",
                message=f"{update.reason}: {update.message}",
            )
        old = conditions_of(custom_object)
        updates = [*_of_these(old, await gone_workload(self._kube, reference)), *_of_these(old, status.removed)]
        updates += status.updates
        named = {update.type for update in updates}
        wanted = with_conditions(
            {**custom_object.status, "phase": str(Phase.TERMINATING)},
            old,
            updates,
            generation=custom_object.metadata.generation,
            untouched=[condition for condition in old if condition.type not in named],
        )
        if wanted == custom_object.status:
            return result
        await self._kube.replace_status(resource, {**body, "status": wanted}, reference.namespace)
        return StatusResult(phase=Phase.TERMINATING, is_written=True)

    async def _mark_retained(self, held: list[HeldClaim]) -> None:
        """Note that the data of these claims stays, for a cleanup that runs after the object is gone."""
        for claim in held:
            if not claim.is_retained:
                await self._claim_store.acquire(claim.owner, [claim.claim], is_retained=True)

    async def _remove_finalizer(self, step: CleanupStepInput) -> None:
        resource, reference = custom_resource(step.reference.kind), step.reference
        body = await self._kube.get(resource, reference.name, reference.namespace)
        if body is None:
            return
        custom_object = CustomObject.from_api(reference.kind, body)
        finalizers = custom_object.metadata.finalizers
        # A newer object of the same name will have its own cleanup.
        if custom_object.metadata.uid != step.uid or not custom_object.is_deleting or FINALIZER not in finalizers:
            return
        path = f"/metadata/finalizers/{finalizers.index(FINALIZER)}"
        operations: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": step.uid},
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]
        await self._kube.json_patch(resource, reference.name, operations, reference.namespace)


def _of_these(conditions: Sequence[Condition], updates: Sequence[ConditionUpdate]) -> list[ConditionUpdate]:
    """Return the updates whose condition exists: what an object never had is not reported as gone."""
    standing = {condition.type for condition in conditions}
    return [update for update in updates if update.type in standing]


def _is_kept(held: HeldClaim, step: CleanupStepInput) -> bool:
    # An earlier run has released what is in quarantine.
    is_held = held.quarantined_until is None
    return is_held and is_data(held.claim) and step.retains(held.claim.kind, held.claim.name)
