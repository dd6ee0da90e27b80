"""One round of the provisioning steps. An Application's run and a preview's run share it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.claim import ClaimActivities
    from activities.rollout import RolloutActivities
    from activities.status import StatusActivities
    from clients.temporal import ENVIRONMENT_ATTRIBUTE
    from plattr.features import ConditionType, Step
    from plattr.objects import FrozenModel
    from plattr.status import ConditionUpdate, Phase
    from plattr.steps import (
        ClaimInput,
        ClaimResult,
        PendingRequest,
        Problem,
        Remedy,
        RolloutInput,
        RunState,
        StatusInput,
        StepInput,
        StepResult,
    )
    from workflows.next_action import Become, NextAction
    from workflows.object_run import ObjectRun
    from workflows.step_runner import Preempted, StepFailed
    from workflows.steps import STEP_ACTIVITIES


class ReconcileOutcome(FrozenModel):
    """How one round of the steps ended."""

    verdict: Literal["settled", "deleting", "gone", "paused", "failed", "refused"]
    claim: ClaimResult | None = None
    phase: Phase | None = None
    problem: Problem | None = None

    @property
    def again_at(self) -> datetime | None:
        """Return when a retry can help, where that is known."""
        return self.problem.again_at if self.problem is not None else None


class ProvisioningRun(ObjectRun):
    """Claims the object and runs its steps in order, until they are done or one has failed."""

    def _request_unfinished(self, outcome: ReconcileOutcome, request: PendingRequest) -> None:
        """Ask the next round for what this one did not finish. A claim has taken the parent over already."""
        self._request_again(
            PendingRequest(every_step=request.every_step, take_over=request.take_over and outcome.claim is None)
        )

    async def _reconcile(self, request: PendingRequest) -> ReconcileOutcome:
        """Run every step for the object as it is now. After a signal without a change, resume the preempted round.

        Raises:
            Preempted: the object changed meanwhile, or a signal arrived; read the object again.
        """
        outcome = await self._run_steps(request)
        if outcome.verdict in ("failed", "refused"):
            self._request_unfinished(outcome, request)
        return outcome

    def _become_purge(self, workflow_type: str) -> NextAction:
        """Become the cleanup of what the object has left, since a person asked for it and the object is gone."""
        return Become(workflow_type, RunState(cascade=self._state.cascade, purge=True))

    def _end_purge(self, *, was_asked: bool) -> None:
        """Drop a purge that was asked for before this round: a living object has the name, and adopts what is left."""
        if was_asked:
            self._remember(purge=False)

    async def _run_steps(self, request: PendingRequest) -> ReconcileOutcome:
        try:
            claim = await self._perform(
                Step.CLAIM,
                ClaimActivities.claim_object,
                ClaimInput(reference=self._reference, every_step=request.every_step, take_over=request.take_over),
            )
        except StepFailed as failure:
            return await self._report_failure(None, {}, {Step.CLAIM: failure.problem})
        if claim.verdict != "proceed":
            return ReconcileOutcome(
                verdict=claim.verdict, claim=claim, phase=Phase.RUNNING if claim.verdict == "settled" else None
            )

        workflow.upsert_search_attributes([ENVIRONMENT_ATTRIBUTE.value_set(claim.environment)])
        self._show(phase=Phase.PROVISIONING)
        argument = StepInput(reference=self._reference, uid=claim.uid, generation=claim.generation)
        found: dict[ConditionType, ConditionUpdate] = {update.type: update for update in claim.kept}
        problems: dict[Step, Problem] = {}
        self._resume_steps(claim)
        for step in (*claim.steps, Step.ROLLOUT):
            try:
                if step is Step.ROLLOUT:
                    result = await self._roll_out(argument, found, problems)
                else:
                    result = await self._perform_once(step, STEP_ACTIVITIES[step].reconcile, argument)
            except StepFailed as failure:
                problems[step] = failure.problem
                if step.blocks:
                    break
            else:
                found |= {update.type: update for update in result.updates}
        if problems:
            return await self._report_failure(claim, found, problems)

        try:
            status = await self._perform(
                Step.STATUS,
                StatusActivities.write_status,
                StatusInput(
                    reference=self._reference,
                    uid=claim.uid,
                    generation=claim.generation,
                    updates=tuple(found.values()),
                ),
            )
        except StepFailed as failure:
            return ReconcileOutcome(verdict="failed", claim=claim, phase=Phase.PROVISIONING, problem=failure.problem)
        if status.phase is Phase.TERMINATING:
            # The object was deleted during the last step, and nothing was written. The next claim says so.
            raise Preempted
        self._show(phase=status.phase, last_error=None)
        # A Deployment that vanished between the rollout and the status is no success: the run starts again.
        is_settled = status.phase is Phase.RUNNING
        return ReconcileOutcome(verdict="settled" if is_settled else "failed", claim=claim, phase=status.phase)

    async def _roll_out(
        self, argument: StepInput, found: Mapping[ConditionType, ConditionUpdate], problems: Mapping[Step, Problem]
    ) -> StepResult:
        """Wait for the rollout. If it takes longer than a few seconds, the status says so meanwhile."""
        said: ConditionUpdate | None = None
        while True:
            waiting = RolloutInput(**argument.model_dump(), said=said)
            result = await self._perform(Step.ROLLOUT, RolloutActivities.await_rollout, waiting)
            self._show(waiting_for=result.waiting_for)
            if result.is_done:
                return result
            if self._changed:
                raise Preempted
            if result.updates:
                (said,) = result.updates
                updates = {**found, **_as_updates(problems), said.type: said}
                done = self._progress.done
                status = StatusInput(
                    reference=argument.reference,
                    uid=argument.uid,
                    generation=argument.generation,
                    updates=tuple(updates.values()),
                    is_underway=True,
                )
                await self._perform(Step.STATUS, StatusActivities.write_status, status)
                # Writing the status was no step of its own.
                self._show(step=Step.ROLLOUT, done=done, waiting_for=result.waiting_for)

    async def _report_failure(
        self,
        claim: ClaimResult | None,
        found: dict[ConditionType, ConditionUpdate],
        problems: dict[Step, Problem],
    ) -> ReconcileOutcome:
        """Say in the status what failed and why. The caller decides when to retry."""
        found |= _as_updates(problems)
        worst = max(problems.values(), key=lambda problem: problem.remedy is Remedy.CHANGE)
        is_refused = worst.remedy is Remedy.CHANGE
        found[ConditionType.READY] = ConditionUpdate(
            type=ConditionType.READY, status="False", reason=worst.reason, message=worst.message
        )
        expected = [step.condition for step in (*(claim.steps if claim else ()), Step.ROLLOUT)]
        expected.append(ConditionType.INGRESS)
        try:
            await self._perform(
                Step.STATUS,
                StatusActivities.write_status,
                StatusInput(
                    reference=self._reference,
                    uid=claim.uid if claim else "",
                    generation=claim.generation if claim else 0,
                    updates=tuple(found.values()),
                    unreached=tuple(dict.fromkeys(condition for condition in expected if condition not in found)),
                    retries_exhausted=True,
                    is_refused=is_refused,
                ),
            )
        except StepFailed as failure:
            # The API server is away as well. The run stays open and reports everything in the next round.
            self._show(phase=Phase.FAILED)
            return ReconcileOutcome(verdict="failed", claim=claim, phase=Phase.FAILED, problem=failure.problem)
        self._show(phase=Phase.FAILED)
        return ReconcileOutcome(
            verdict="refused" if is_refused else "failed", claim=claim, phase=Phase.FAILED, problem=worst
        )


def _as_updates(problems: Mapping[Step, Problem]) -> dict[ConditionType, ConditionUpdate]:
    updates = {}
    for step, problem in problems.items():
        condition = problem.condition or step.condition
        updates[condition] = ConditionUpdate(
            type=condition, status="False", reason=problem.reason, message=problem.message
        )
    return updates
