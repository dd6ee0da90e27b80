"""Removes one object's resources, in order, for as long as it takes."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import ClassVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.claim import ClaimActivities
    from activities.release import ReleaseActivities
    from plattr.features import Step
    from plattr.status import ConditionUpdate, Phase
    from plattr.steps import (
        CleanupInput,
        CleanupPlan,
        CleanupStepInput,
        PendingRequest,
        Problem,
        Remedy,
        RunResult,
        StatusInput,
        StepResult,
    )
    from workflows.next_action import Again, Become, Done, NextAction, Pause
    from workflows.object_run import ObjectRun
    from workflows.step_runner import Preempted, StepFailed
    from workflows.steps import STEP_ACTIVITIES

# The finalizer is no feature: only a cleanup has the step that takes it off.
DELETE = {step: each.delete for step, each in STEP_ACTIVITIES.items()}
DELETE[Step.RELEASE] = ReleaseActivities.release_object


class CleanupRun(ObjectRun):
    """Removes what an owner has, backend by backend. It retries until everything is gone."""

    successor: ClassVar[str]
    """The workflow type that provisions the object if a living one has the name again."""

    async def _run_round(self, _request: PendingRequest) -> NextAction:
        """Plan the cleanup and run its steps once, until nothing is left but retained data.

        The finalizer goes last, after every backend confirmed absence: until then the object says what is left.
        """
        plan: CleanupPlan | None = None
        asked_to_purge = self._state.purge
        try:
            plan = await self._perform(
                Step.CLAIM,
                ClaimActivities.plan_cleanup,
                CleanupInput(
                    reference=self._reference,
                    delete_object=self._state.delete_object,
                    uid=self._state.uid,
                    purge=asked_to_purge,
                ),
            )
            # Delete only once: whatever has the name afterwards is a new object. A new object also ends a purge, but
            # not one that a signal asked for meanwhile: the next round plans that one.
            is_new_purge = self._state.purge and not asked_to_purge
            self._remember(delete_object=False, purge=plan.purge or is_new_purge)
            if plan.verdict == "recreated":
                return Become(self.successor)
            self._show(phase=Phase.TERMINATING)
            end = await self._remove_everything(plan)
        except StepFailed as failure:
            await self._report(plan, failure.step, failure.problem, is_stuck=True)
            return Pause()
        # The last look for late calls finds the claims released already. Then what the first look left counts.
        left = tuple(result.left for result in self._finished.values() if result.left) or self._state.left
        self._remember(left=left)
        if end is not None:
            await self._await_late_calls(end)
            return Again()
        return Done(RunResult(phase=None, summary=self._summary(plan)))

    async def _await_late_calls(self, end: datetime) -> None:
        """Sleep until no unanswered call can still take effect. The object is gone; the next round looks again."""
        self._show(
            step=Step.RELEASE,
            waiting_for=f"calls that were never answered: they may come true until {end:%H:%M:%S} UTC",
        )
        # 1 s: the worker's clock may be behind the server's.
        delay = max(end - workflow.now(), timedelta(0)) + timedelta(seconds=1)
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._changed, timeout=delay, timeout_summary=f"last look for what {self._reference} left"
            )
        self._show(waiting_for="")

    async def _remove_everything(self, plan: CleanupPlan) -> datetime | None:
        """Run the plan's steps; return when to look again, or None if no unanswered call can still take effect."""
        argument = CleanupStepInput(
            reference=self._reference,
            uid=plan.uid,
            namespace_uid=plan.namespace_uid,
            retain=plan.retain,
            outliving=plan.outliving,
            cascade=self._state.cascade,
        )
        said: set[tuple[Step, str]] = set()

        async def on_wait(step: Step, waiting_for: str) -> None:
            # Once each: a step that empties a bucket of a million objects is called many times.
            if (step, waiting_for) not in said:
                said.add((step, waiting_for))
                await self._report(
                    plan,
                    step,
                    Problem(reason="Waiting", message=f"waits for {waiting_for}", remedy=Remedy.WAIT),
                    is_stuck=False,
                )

        if plan.uid:
            self._resume_steps(plan)
        else:
            # The object is gone: nothing says whether the plan is for the same object as before.
            self._discard_steps()
        result = StepResult()
        for step in plan.steps:
            result = await self._perform_once(step, DELETE[step], argument, on_wait)
        return result.look_again_at

    async def _report(self, plan: CleanupPlan | None, step: Step, problem: Problem, *, is_stuck: bool) -> None:
        """Say on the object why its deletion is held up. A report that fails must not stop the cleanup."""
        condition = problem.condition or step.condition
        update = ConditionUpdate(type=condition, status="False", reason=problem.reason, message=problem.message)
        try:
            await self._perform(
                Step.STATUS,
                ReleaseActivities.report_stuck,
                StatusInput(
                    reference=self._reference,
                    uid=plan.uid if plan else "",
                    updates=(update,),
                    retries_exhausted=is_stuck,
                    removed=tuple(_removed(done, result, plan) for done, result in self._finished.items()),
                ),
            )
        except (Preempted, StepFailed):
            self._show(last_error=problem)

    def _summary(self, plan: CleanupPlan) -> str:
        if self._state.left:
            return f"{self._reference} is gone; not removed is {'; '.join(self._state.left)}"
        if plan.retain or plan.outliving:
            return f"{self._reference} is gone; the data that it retained is left"
        return f"nothing of {self._reference} is left"


def _removed(step: Step, result: StepResult, plan: CleanupPlan | None) -> ConditionUpdate:
    """Return what is true after a step of the cleanup."""
    if result.left:
        return ConditionUpdate(
            type=step.condition, status="False", reason="Left", message=f"not removed is {result.left}"
        )
    if plan is not None and plan.retain and step.keeps_data:
        message = "its data is retained, and closed until the object is made again"
        return ConditionUpdate(type=step.condition, status="False", reason="Retained", message=message)
    return ConditionUpdate(
        type=step.condition, status="False", reason="Removed", message="it is removed with the object"
    )
