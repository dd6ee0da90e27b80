"""One pass over the provisioning steps; an Application's run and a preview's run share it."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.auth import AuthActivities
    from activities.claim import ClaimActivities
    from activities.clients.temporal import ENVIRONMENT_ATTRIBUTE
    from activities.database import DatabaseActivities
    from activities.namespace import NamespaceActivities
    from activities.redis import RedisActivities
    from activities.rollout import RolloutActivities
    from activities.search import SearchActivities
    from activities.status import StatusActivities
    from activities.storage import StorageActivities
    from activities.workload import WorkloadActivities
    from plattr.objects import FrozenModel, ObjectReference
    from plattr.status import ConditionType, Finding, Phase
    from plattr.steps import (
        ClaimInput,
        ClaimResult,
        Problem,
        Remedy,
        RolloutInput,
        StatusInput,
        Step,
        StepInput,
        StepResult,
    )
    from workflows.object_run import Ask, CalledOff, ObjectRun, StepFailed

StepActivity = Callable[[Any, StepInput], Awaitable[StepResult]]

RECONCILE: dict[Step, StepActivity] = {
    Step.NAMESPACE: NamespaceActivities.reconcile_namespace,
    Step.DATABASE: DatabaseActivities.reconcile_database,
    Step.STORAGE: StorageActivities.reconcile_storage,
    Step.AUTH: AuthActivities.reconcile_auth,
    Step.REDIS: RedisActivities.reconcile_redis,
    Step.SEARCH: SearchActivities.reconcile_search,
    Step.WORKLOAD: WorkloadActivities.reconcile_workload,
}

# An application whose logins are down for a while is still better up than absent.
# Source: shared/spec.md, section 3, auth.
DOES_NOT_BLOCK = frozenset({Step.AUTH})


class PassOutcome(FrozenModel):
    """How one pass over the steps ended."""

    verdict: Literal["settled", "deleting", "gone", "paused", "failed", "refused"]
    claim: ClaimResult | None = None
    phase: Phase | None = None
    problem: Problem | None = None

    @property
    def again_at(self) -> datetime | None:
        """Return when beginning anew can help, where that is known."""
        return self.problem.again_at if self.problem is not None else None


class ProvisioningRun(ObjectRun):
    """Claims the object and runs its steps in order, until they are done or one gives up."""

    def _owe_after(self, outcome: PassOutcome, ask: Ask) -> None:
        """Owe what did not get through; the parent has been taken over as soon as the claim has it in the status."""
        self._owe(Ask(every_step=ask.every_step, take_over=ask.take_over and outcome.claim is None))

    async def _pass(self, reference: ObjectReference, ask: Ask) -> PassOutcome:
        """Run every step for the object as it is now; go on after those of a pass that was called off for nothing.

        Raises:
            CalledOff: the object changed on the way; read it again.
        """
        outcome = await self._go_through(reference, ask)
        self._forget()
        return outcome

    async def _go_through(self, reference: ObjectReference, ask: Ask) -> PassOutcome:
        try:
            claim = await self._perform(
                Step.CLAIM,
                ClaimActivities.claim_object,
                ClaimInput(reference=reference, every_step=ask.every_step, take_over=ask.take_over),
            )
        except StepFailed as failure:
            return await self._give_up(reference, None, {}, {Step.CLAIM: failure.problem})
        if claim.verdict != "proceed":
            return PassOutcome(
                verdict=claim.verdict, claim=claim, phase=Phase.RUNNING if claim.verdict == "settled" else None
            )

        workflow.upsert_search_attributes([ENVIRONMENT_ATTRIBUTE.value_set(claim.environment)])
        self._show(phase=Phase.PROVISIONING)
        argument = StepInput(reference=reference, uid=claim.uid, generation=claim.generation)
        found: dict[ConditionType, Finding] = {finding.type: finding for finding in claim.kept}
        problems: dict[Step, Problem] = {}
        self._take_up(claim)
        for step in (*claim.steps, Step.ROLLOUT):
            try:
                if step is Step.ROLLOUT:
                    result = await self._roll_out(argument, found, problems)
                else:
                    result = await self._perform_once(step, RECONCILE[step], argument)
            except StepFailed as failure:
                problems[step] = failure.problem
                if step not in DOES_NOT_BLOCK:
                    break
            else:
                found |= {finding.type: finding for finding in result.findings}
        if problems:
            return await self._give_up(reference, claim, found, problems)

        try:
            status = await self._perform(
                Step.STATUS,
                StatusActivities.write_status,
                StatusInput(
                    reference=reference, uid=claim.uid, generation=claim.generation, findings=tuple(found.values())
                ),
            )
        except StepFailed as failure:
            return PassOutcome(verdict="failed", claim=claim, phase=Phase.PROVISIONING, problem=failure.problem)
        if status.phase is Phase.TERMINATING:
            # It went away under the last step: nothing was written, the next look says what it is now.
            raise CalledOff
        self._show(phase=status.phase, last_error=None)
        # A Deployment lost between the rollout and the status is no success; the run stays open and begins anew.
        is_settled = status.phase is Phase.RUNNING
        return PassOutcome(verdict="settled" if is_settled else "failed", claim=claim, phase=status.phase)

    async def _roll_out(
        self, argument: StepInput, found: Mapping[ConditionType, Finding], problems: Mapping[Step, Problem]
    ) -> StepResult:
        """Wait for the rollout; one that takes longer than a few seconds is told of in the status meanwhile."""
        said: Finding | None = None
        while True:
            waiting = RolloutInput(**argument.model_dump(), said=said)
            result = await self._perform(Step.ROLLOUT, RolloutActivities.await_rollout, waiting)
            self._show(waiting_for=result.waiting_for)
            if result.is_done:
                return result
            if self._changed:
                raise CalledOff
            if result.findings:
                (said,) = result.findings
                findings = {**found, **_as_findings(problems), said.type: said}
                done = self._progress.done
                status = StatusInput(
                    reference=argument.reference,
                    uid=argument.uid,
                    generation=argument.generation,
                    findings=tuple(findings.values()),
                    is_underway=True,
                )
                await self._perform(Step.STATUS, StatusActivities.write_status, status)
                # What was said on the object was no step of its own.
                self._show(step=Step.ROLLOUT, done=done, waiting_for=result.waiting_for)

    async def _give_up(
        self,
        reference: ObjectReference,
        claim: ClaimResult | None,
        found: dict[ConditionType, Finding],
        problems: dict[Step, Problem],
    ) -> PassOutcome:
        """Say in the status what failed and why; the caller decides when to begin anew."""
        found |= _as_findings(problems)
        worst = max(problems.values(), key=lambda problem: problem.remedy is Remedy.CHANGE)
        is_refused = worst.remedy is Remedy.CHANGE
        found[ConditionType.READY] = Finding(
            type=ConditionType.READY, status="False", reason=worst.reason, message=worst.message
        )
        expected = [step.condition for step in (*(claim.steps if claim else ()), Step.ROLLOUT)]
        expected.append(ConditionType.INGRESS)
        try:
            await self._perform(
                Step.STATUS,
                StatusActivities.write_status,
                StatusInput(
                    reference=reference,
                    uid=claim.uid if claim else "",
                    generation=claim.generation if claim else 0,
                    findings=tuple(found.values()),
                    unreached=tuple(dict.fromkeys(condition for condition in expected if condition not in found)),
                    gave_up=True,
                    is_refused=is_refused,
                ),
            )
        except StepFailed as failure:
            # The API server is away as well: the run stays open and says it all at the next round.
            self._show(phase=Phase.FAILED)
            return PassOutcome(verdict="failed", claim=claim, phase=Phase.FAILED, problem=failure.problem)
        self._show(phase=Phase.FAILED)
        return PassOutcome(
            verdict="refused" if is_refused else "failed", claim=claim, phase=Phase.FAILED, problem=worst
        )


def _as_findings(problems: Mapping[Step, Problem]) -> dict[ConditionType, Finding]:
    findings = {}
    for step, problem in problems.items():
        condition = problem.condition or step.condition
        findings[condition] = Finding(type=condition, status="False", reason=problem.reason, message=problem.message)
    return findings
