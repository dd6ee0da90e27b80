"""What every run for one object has in common: signals, the progress query, and how a step is performed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NoReturn, Self, TypeVar

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as ActivityTimedOut

with workflow.unsafe.imports_passed_through():
    from clients.temporal import NAME_ATTRIBUTE, NAMESPACE_ATTRIBUTE, PHASE_ATTRIBUTE
    from plattr.objects import FrozenModel, ObjectReference
    from plattr.steps import (
        CASCADE_SIGNAL,
        CHANGED_SIGNAL,
        PROGRESS_QUERY,
        REPAIR_SIGNAL,
        RESYNC_SIGNAL,
        Problem,
        Progress,
        Remedy,
        RunInput,
        Step,
        StepResult,
    )
    from workflows.details import describe_progress
    from workflows.options import HEARTBEAT_TIMEOUT, START_TO_CLOSE, STEP_RETRIES, slow_retry_delay

Result = TypeVar("Result")
Argument = TypeVar("Argument")
StepCall = Callable[[Any, Argument], Awaitable[StepResult]]
# Told what a step waits for, each time that it has to be called again.
OnWait = Callable[[Step, str], Awaitable[None]]


class StepFailed(Exception):
    """A step's quick retries are used up, or none can help."""

    def __init__(self, step: Step, problem: Problem) -> None:
        super().__init__(problem.message)
        self.step = step
        self.problem = problem


class Preempted(Exception):
    """The object changed while a step ran: its attempt has ended, its retries are preempted."""


class PendingRequest(FrozenModel):
    """How much the next look at the object is to do, even if its spec is settled."""

    every_step: bool = False
    take_over: bool = False

    def __or__(self, other: Self) -> "PendingRequest":
        return PendingRequest(
            every_step=self.every_step or other.every_step, take_over=self.take_over or other.take_over
        )


class ObjectRun:
    """Base of the workflows; one of them at a time runs for an object, under the object's one id."""

    # Of the activities that are started from now on.
    priority: Priority = Priority.default

    def __init__(self) -> None:
        self._changed = False
        self._pending = PendingRequest()
        self._cascade = False
        self._progress = Progress()
        self._reference: ObjectReference | None = None
        # The round that was preempted: what it was about, and the steps that it had done.
        self._about: FrozenModel | None = None
        self._finished: dict[Step, StepResult] = {}

    @workflow.signal(name=CHANGED_SIGNAL)
    def changed(self) -> None:
        """Read the object again and start again; carries nothing, so many changes become one run."""
        self._changed = True

    @workflow.signal(name=RESYNC_SIGNAL)
    def resync(self) -> None:
        """Begin again with every step, even if the spec is settled, and take a preview's parent over as it is now.

        What a person asks for; it cuts a pause short as well.
        """
        self._changed = True
        self._discard_steps()
        self._request_again(PendingRequest(every_step=True, take_over=True))

    @workflow.signal(name=REPAIR_SIGNAL)
    def repair(self) -> None:
        """Begin again with every step, even if the spec is settled: what Plattr itself asks for."""
        self._changed = True
        self._discard_steps()
        self._request_again(PendingRequest(every_step=True))

    @workflow.signal(name=CASCADE_SIGNAL)
    def cascade(self) -> None:
        """Let what others made of the object's data go with it; only a cleanup, this run or the next, heeds it."""
        self._changed = True
        self._cascade = True
        self._discard_steps()

    @workflow.query(name=PROGRESS_QUERY)
    def progress(self) -> Progress:
        """Tell where the run stands."""
        return self._progress

    def _begin(self, reference: ObjectReference, run: RunInput) -> None:
        self._reference = reference
        self._progress = Progress(round=run.round)
        # The signal may have come before.
        self._cascade = self._cascade or run.cascade
        workflow.upsert_search_attributes(
            [NAMESPACE_ATTRIBUTE.value_set(reference.namespace), NAME_ATTRIBUTE.value_set(reference.name)]
        )

    def _request_again(self, request: PendingRequest) -> None:
        self._pending = self._pending | request

    def _renewed(self, run: RunInput) -> RunInput:
        """Return with what the same run goes on in a new history."""
        carried = {"round": self._progress.round, "by_hand": False, "cascade": self._cascade}
        return run.model_copy(update={**carried, **self._pending.model_dump()})

    def _take_request(self) -> PendingRequest:
        request, self._pending = self._pending, PendingRequest()
        return request

    def _resume_steps(self, about: FrozenModel) -> None:
        """Begin the steps of a round; those that a round which was preempted has done are done if nothing differs.

        A watcher that starts tells every run that is open to look again. One that keeps on restarting must not keep
        everybody at the first steps.
        """
        if about != self._about:
            self._about, self._finished = about, {}

    def _discard_steps(self) -> None:
        """Let the next round begin with its first step."""
        self._about, self._finished = None, {}

    def _show(self, **update: Any) -> None:
        """Keep the query's answer, and the UI's current details with it."""
        before = self._progress.phase
        self._progress = self._progress.model_copy(update=update)
        if self._progress.phase is not before:
            workflow.upsert_search_attributes([PHASE_ATTRIBUTE.value_set(str(self._progress.phase))])
        workflow.set_current_details(describe_progress(str(self._reference), self._progress))

    async def _perform(
        self,
        step: Step,
        activity: Callable[[Any, Argument], Awaitable[Result]],
        argument: Argument,
    ) -> Result:
        """Run one activity; a change ends its retries, but an attempt that has begun always ends.

        Two attempts for one object would undo each other, so the run waits for the one in flight
        (WAIT_CANCELLATION_COMPLETED); the interceptor keeps that attempt from being cut off in the middle.

        Raises:
            Preempted: the object changed before the step succeeded.
            StepFailed: the quick retries are used up, or none can help.
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
            # Somebody cancels the run itself: even then it must not close while an attempt may still write.
            handle.cancel()
            await asyncio.gather(handle, return_exceptions=True)
            raise
        if not handle.done():
            handle.cancel()
        try:
            result = await handle
        except ActivityError as error:
            problem = _problem_of(error)
            if self._changed or problem.remedy is Remedy.REREAD:
                raise Preempted from None
            self._show(last_error=problem, attempt=_attempts_of(problem))
            raise StepFailed(step, problem) from None
        self._show(
            done=(*self._progress.done, step) if step not in self._progress.done else self._progress.done,
            took={**self._progress.took, step: workflow.now() - started},
        )
        return result

    async def _perform_until_done(
        self, step: Step, activity: StepCall[Argument], argument: Argument, on_wait: OnWait | None = None
    ) -> StepResult:
        """Call a step again for as long as it says that it is not done; each call is short and counts again."""
        while True:
            result = await self._perform(step, activity, argument)
            self._show(waiting_for=result.waiting_for)
            if result.is_done:
                return result
            if self._changed:
                raise Preempted
            if on_wait is not None:
                await on_wait(step, result.waiting_for)
                # What was said on the object was a step, too.
                self._show(step=step, waiting_for=result.waiting_for)

    async def _perform_once(
        self, step: Step, activity: StepCall[Argument], argument: Argument, on_wait: OnWait | None = None
    ) -> StepResult:
        """Run a step until it is done, unless the round that was preempted had done it; see `_resume_steps`."""
        if step not in self._finished:
            self._finished[step] = await self._perform_until_done(step, activity, argument, on_wait)
        return self._finished[step]

    async def _pause(self, until: datetime | None = None) -> None:
        """Sleep between two rounds; any `changed` or `resync` cuts it short, and so does `until` if it is to come."""
        self._discard_steps()
        delay = slow_retry_delay(self._progress.round)
        if until is not None and until > workflow.now():
            # 1 s: the worker's clock may go behind the server's.
            delay = min(delay, until - workflow.now() + timedelta(seconds=1))
        self._show(next_retry=workflow.now() + delay)
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._changed, timeout=delay, timeout_summary=f"retry of {self._reference}"
            )
        self._show(round=self._progress.round + 1, next_retry=None, done=(), took={})


def continue_as(workflow_type: str, run: RunInput, *, cascade: bool = False) -> NoReturn:
    """Go on as another type of run for the same object, under the same id; it reads the object itself."""
    workflow.continue_as_new(
        args=[RunInput(namespace=run.namespace, name=run.name, by_hand=False, cascade=cascade)],
        workflow=workflow_type,
    )


def _problem_of(error: ActivityError) -> Problem:
    """Read the one detail that activities/interceptor.py puts into every failure."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.details:
        return Problem.model_validate(cause.details[0])
    if isinstance(cause, ActivityTimedOut):
        return Problem(
            reason="TimedOut",
            message=f"cannot finish {error.activity_type}: no answer in time; the worker died, or a backend hangs",
            remedy=Remedy.RETRY,
        )
    return Problem(reason="Unexpected", message=f"cannot finish {error.activity_type}: {cause}", remedy=Remedy.RETRY)


def _attempts_of(problem: Problem) -> int:
    return STEP_RETRIES.maximum_attempts if problem.remedy is Remedy.RETRY else 1
