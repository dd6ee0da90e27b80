"""Taking one object's resources down, in order, for as long as it takes."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.auth import AuthActivities
    from activities.claim import ClaimActivities
    from activities.database_removal import DatabaseRemovalActivities
    from activities.namespace import NamespaceActivities
    from activities.redis import RedisActivities
    from activities.release import ReleaseActivities
    from activities.search import SearchActivities
    from activities.storage import StorageActivities
    from activities.workload import WorkloadActivities
    from plattr.objects import ObjectReference
    from plattr.status import ConditionUpdate, Phase
    from plattr.steps import (
        CleanupInput,
        CleanupPlan,
        CleanupStepInput,
        Problem,
        Remedy,
        RunInput,
        RunResult,
        StatusInput,
        Step,
        StepResult,
    )
    from workflows.object_run import ObjectRun, Preempted, StepFailed

CleanupActivity = Callable[[Any, CleanupStepInput], Awaitable[StepResult]]

DELETE: dict[Step, CleanupActivity] = {
    Step.WORKLOAD: WorkloadActivities.delete_workload,
    Step.SEARCH: SearchActivities.delete_search,
    Step.REDIS: RedisActivities.delete_redis,
    Step.AUTH: AuthActivities.delete_auth,
    Step.STORAGE: StorageActivities.delete_storage,
    Step.DATABASE: DatabaseRemovalActivities.delete_database,
    Step.NAMESPACE: NamespaceActivities.delete_namespace,
    Step.RELEASE: ReleaseActivities.release_object,
}

# Whose data outlives an object with deletionPolicy Retain.
RETAINING = frozenset({Step.DATABASE, Step.STORAGE, Step.AUTH, Step.REDIS, Step.SEARCH})


class CleanupRun(ObjectRun):
    """Removes what an owner has, backend by backend; it never gives up."""

    async def _clean_up(self, reference: ObjectReference, run: RunInput) -> RunResult | None:
        """Return when nothing is left but what is retained; None: a living object has the name again.

        The finalizer goes last, after every backend confirmed absence: until then the object says what is left.
        """
        delete_object, purge = run.by_hand and not run.purge, run.purge
        left: list[str] = []
        while True:
            # Whichever way the last round ended: thousands of changes may come while none of them gets through.
            if workflow.info().is_continue_as_new_suggested():
                carried = {"round": self._progress.round, "by_hand": delete_object, "purge": purge}
                workflow.continue_as_new(run.model_copy(update={**carried, "cascade": self._cascade}))
            self._changed = False
            plan: CleanupPlan | None = None
            try:
                plan = await self._perform(
                    Step.CLAIM,
                    ClaimActivities.plan_cleanup,
                    CleanupInput(reference=reference, delete_object=delete_object, uid=run.uid, purge=purge),
                )
                # Only once: what has the name after that is somebody's new object. That ends a purge, too.
                delete_object, purge = False, plan.purge
                if plan.verdict == "recreated":
                    return None
                self._show(phase=Phase.TERMINATING)
                end = await self._remove_everything(reference, plan)
            except Preempted:
                continue
            except StepFailed as failure:
                await self._report(reference, plan, failure.step, failure.problem, is_stuck=True)
                await self._pause()
            else:
                # A last look for late calls finds the claims given back: what the first found counts.
                left = [result.left for result in self._finished.values() if result.left] or left
                self._discard_steps()
                if end is not None:
                    await self._await_late_calls(end)
                # A new object of the same name may have signalled while the old one went.
                elif not self._changed:
                    return RunResult(phase=None, summary=_summary(reference, plan, left))

    async def _await_late_calls(self, end: datetime) -> None:
        """Sleep until nothing can come true any more; the object is gone by now, and the next round looks again."""
        self._show(
            step=Step.RELEASE,
            waiting_for=f"calls that were never answered: they may come true until {end:%H:%M:%S} UTC",
        )
        # 1 s: the worker's clock may go behind the server's.
        delay = max(end - workflow.now(), timedelta(0)) + timedelta(seconds=1)
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._changed, timeout=delay, timeout_summary=f"last look for what {self._reference} left"
            )
        self._show(waiting_for="", done=(), took={})

    async def _remove_everything(self, reference: ObjectReference, plan: CleanupPlan) -> datetime | None:
        """Return when to look again; None: nothing can come any more."""
        argument = CleanupStepInput(
            reference=reference,
            uid=plan.uid,
            namespace_uid=plan.namespace_uid,
            retain=plan.retain,
            outliving=plan.outliving,
            cascade=self._cascade,
        )
        said: set[tuple[Step, str]] = set()

        async def on_wait(step: Step, waiting_for: str) -> None:
            # Once each: a bucket of a million objects is called for again and again.
            if (step, waiting_for) not in said:
                said.add((step, waiting_for))
                await self._report(
                    reference,
                    plan,
                    step,
                    Problem(reason="Waiting", message=f"waits for {waiting_for}", remedy=Remedy.WAIT),
                    is_stuck=False,
                )

        if plan.uid:
            self._resume_steps(plan)
        else:
            # Of an object that is gone nothing tells whether it is the one of before.
            self._discard_steps()
        result = StepResult()
        for step in plan.steps:
            result = await self._perform_once(step, DELETE[step], argument, on_wait)
        return result.look_again_at

    async def _report(
        self, reference: ObjectReference, plan: CleanupPlan | None, step: Step, problem: Problem, *, is_stuck: bool
    ) -> None:
        """Say on the object why its deletion does not get on; that this fails too must not stop the cleanup."""
        condition = problem.condition or step.condition
        update = ConditionUpdate(type=condition, status="False", reason=problem.reason, message=problem.message)
        try:
            await self._perform(
                Step.STATUS,
                ReleaseActivities.report_stuck,
                StatusInput(
                    reference=reference,
                    uid=plan.uid if plan else "",
                    updates=(update,),
                    retries_exhausted=is_stuck,
                    removed=tuple(_removed(done, result, plan) for done, result in self._finished.items()),
                ),
            )
        except (Preempted, StepFailed):
            self._show(last_error=problem)


def _removed(step: Step, result: StepResult, plan: CleanupPlan | None) -> ConditionUpdate:
    """Return what is true after a step of the cleanup."""
    if result.left:
        return ConditionUpdate(
            type=step.condition, status="False", reason="Left", message=f"not removed is {result.left}"
        )
    if plan is not None and plan.retain and step in RETAINING:
        message = "its data is retained, and closed until the object is made again"
        return ConditionUpdate(type=step.condition, status="False", reason="Retained", message=message)
    return ConditionUpdate(
        type=step.condition, status="False", reason="Removed", message="it is removed with the object"
    )


def _summary(reference: ObjectReference, plan: CleanupPlan, left: Sequence[str]) -> str:
    if left:
        return f"{reference} is gone; not removed is {'; '.join(left)}"
    if plan.retain or plan.outliving:
        return f"{reference} is gone; the data that it retained is left"
    return f"nothing of {reference} is left"
