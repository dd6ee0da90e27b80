"""How a run performs its steps, and shows where it stands."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from clients.temporal import PHASE_ATTRIBUTE
    from plattr.features import Step
    from plattr.objects import FrozenModel, ObjectReference
    from plattr.steps import PROGRESS_QUERY, Problem, Progress, Remedy, StepResult
    from workflows.details import describe_progress
    from workflows.options import HEARTBEAT_TIMEOUT, START_TO_CLOSE, STEP_RETRIES
    from workflows.problems import attempts_of, problem_of

Result = TypeVar("Result")
Argument = TypeVar("Argument")
StepCall = Callable[[Any, Argument], Awaitable[StepResult]]
# Called with what a step waits for, each time that the step has to be called again.
OnWait = Callable[[Step, str], Awaitable[None]]


class StepFailed(Exception):
    """A step's quick retries are exhausted, or no retry can help."""

    def __init__(self, step: Step, problem: Problem) -> None:
        super().__init__(problem.message)
        self.step = step
        self.problem = problem


class Preempted(Exception):
    """A signal arrived while a step ran. Its attempt has ended, and its retries are cancelled."""


class StepRunner:
    """Performs the steps of one object's run."""

    # Of the activities that start from now on.
    priority: Priority = Priority.default

    def __init__(self, reference: ObjectReference, round_number: int) -> None:
        self._reference = reference
        self._progress = Progress(round=round_number)
        # A signal arrived since the round began.
        self._changed = False
        # The claim or plan of the preempted round, and the steps that the round had finished.
        self._about: FrozenModel | None = None
        self._finished: dict[Step, StepResult] = {}

    @workflow.query(name=PROGRESS_QUERY)
    def progress(self) -> Progress:
        """Tell where the run stands."""
        return self._progress

    def _show(self, **update: Any) -> None:
        """Update the query's answer, and the current details in the UI."""
        before = self._progress.phase
        self._progress = self._progress.model_copy(update=update)
        if self._progress.phase is not before:
            workflow.upsert_search_attributes([PHASE_ATTRIBUTE.value_set(str(self._progress.phase))])
        workflow.set_current_details(describe_progress(str(self._reference), self._progress))

    def _resume_steps(self, about: FrozenModel) -> None:
        """Begin the steps of a round. Keep what the preempted round finished, if claim or plan is still the same.

        A watcher that starts sends a signal to every open run. A watcher that keeps restarting must not hold every run
        at its first steps.
        """
        if about != self._about:
            self._about, self._finished = about, {}

    def _discard_steps(self) -> None:
        """Let the next round begin with its first step."""
        self._about, self._finished = None, {}

    async def _perform(
        self,
        step: Step,
        activity: Callable[[Any, Argument], Awaitable[Result]],
        argument: Argument,
    ) -> Result:
        """Run one activity. A signal cancels its retries, but an attempt that has begun always ends.

        Two attempts for one object would undo each other, so the run waits for the attempt in flight
        (WAIT_CANCELLATION_COMPLETED). The interceptor keeps the attempt from being cut off in the middle.

        Raises:
            Preempted: a signal arrived before the step succeeded.
            StepFailed: the quick retries are exhausted, or no retry can help.
        """
        waiting_for = self._progress.waiting_for if step is self._progress.step else ""
        self._show(step=step, next_retry=None, waiting_for=waiting_for)
        started = workflow.now()
        handle = workflow.start_activity_method(
            activity,
            argument,
            start_to_close_timeout=START_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRIES,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{step} of {self._reference}",
            priority=self.priority,
        )
        try:
            await workflow.wait_condition(lambda: self._changed or handle.done())
        except asyncio.CancelledError:
            # A person cancels the run itself. Even then the run must not close while an attempt may still write.
            handle.cancel()
            await asyncio.gather(handle, return_exceptions=True)
            raise
        if not handle.done():
            handle.cancel()
        try:
            result = await handle
        except ActivityError as error:
            problem = problem_of(error)
            if self._changed or problem.remedy is Remedy.REREAD:
                raise Preempted from None
            self._show(last_error=problem, attempt=attempts_of(problem))
            raise StepFailed(step, problem) from None
        self._show(
            done=(*self._progress.done, step) if step not in self._progress.done else self._progress.done,
            took={**self._progress.took, step: workflow.now() - started},
        )
        return result

    async def _perform_until_done(
        self, step: Step, activity: StepCall[Argument], argument: Argument, on_wait: OnWait | None = None
    ) -> StepResult:
        """Call a step until it says that it is done. Each call is short and has its own retries."""
        while True:
            result = await self._perform(step, activity, argument)
            self._show(waiting_for=result.waiting_for)
            if result.is_done:
                return result
            if self._changed:
                raise Preempted
            if on_wait is not None:
                await on_wait(step, result.waiting_for)
                # The report was a step of its own, so name the waiting step again.
                self._show(step=step, waiting_for=result.waiting_for)

    async def _perform_once(
        self, step: Step, activity: StepCall[Argument], argument: Argument, on_wait: OnWait | None = None
    ) -> StepResult:
        """Run a step until it is done, unless the preempted round had finished it; see `_resume_steps`."""
        if step not in self._finished:
            self._finished[step] = await self._perform_until_done(step, activity, argument, on_wait)
        return self._finished[step]
