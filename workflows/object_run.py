"""The loop that every run for one object has in common: signals, rounds, pauses and continue-as-new."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, ClassVar, NoReturn

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from clients.temporal import NAME_ATTRIBUTE, NAMESPACE_ATTRIBUTE
    from plattr.objects import Kind
    from plattr.steps import (
        CASCADE_SIGNAL,
        CHANGED_SIGNAL,
        PURGE_SIGNAL,
        REPAIR_SIGNAL,
        RESYNC_SIGNAL,
        PendingRequest,
        RunInput,
        RunResult,
        RunState,
    )
    from workflows.next_action import Again, Become, Done, Fail, NextAction, Pause
    from workflows.options import slow_retry_delay
    from workflows.problems import refusal_of
    from workflows.step_runner import Preempted, StepRunner


class ObjectRun(StepRunner):
    """Base of the workflows. Only one of them at a time runs for an object, under the object's one id."""

    kind: ClassVar[Kind]

    @workflow.init
    def __init__(self, run: RunInput) -> None:
        self._state = run.initial_state()
        super().__init__(run.reference(self.kind), self._state.round)

    @workflow.signal(name=CHANGED_SIGNAL)
    def changed(self) -> None:
        """Read the object again. The signal carries nothing, so many changes become one round."""
        self._changed = True

    @workflow.signal(name=RESYNC_SIGNAL)
    def resync(self) -> None:
        """Run every step again, even if the spec is settled, and take over a preview's parent as it is now.

        A person sends it. It also ends a pause.
        """
        self._changed = True
        self._discard_steps()
        self._request_again(PendingRequest(every_step=True, take_over=True))

    @workflow.signal(name=REPAIR_SIGNAL)
    def repair(self) -> None:
        """Run every step again, even if the spec is settled. Plattr itself sends it."""
        self._changed = True
        self._discard_steps()
        self._request_again(PendingRequest(every_step=True))

    @workflow.signal(name=CASCADE_SIGNAL)
    def cascade(self) -> None:
        """Remove what others made of the object's data as well. Only a cleanup uses it: this run, or the next."""
        self._changed = True
        self._remember(cascade=True)
        self._discard_steps()

    @workflow.signal(name=PURGE_SIGNAL)
    def purge(self) -> None:
        """Remove what an object that is gone has left, retained data as well.

        A cleanup does so in its next round. A run that finds its object gone becomes that cleanup. A living object ends
        the purge.
        """
        self._changed = True
        self._remember(purge=True)
        self._discard_steps()

    async def _run_round(self, request: PendingRequest) -> NextAction:
        """Do once what the object asks for now; return how the run goes on. Each type of run implements it.

        Raises:
            Preempted: a signal arrived, or the object changed; the next round follows at once.
        """
        raise NotImplementedError

    async def _run_rounds(self) -> RunResult:
        """Run one round after another, until the run closes, fails or becomes another type of run."""
        workflow.upsert_search_attributes(
            [
                NAMESPACE_ATTRIBUTE.value_set(self._reference.namespace),
                NAME_ATTRIBUTE.value_set(self._reference.name),
            ]
        )
        while True:
            # However the last round ended: thousands of signals may arrive while no round succeeds.
            if workflow.info().is_continue_as_new_suggested():
                self._continue_as(workflow.info().workflow_type, self._state)
            self._changed = False
            request = self._take_request()
            try:
                action = await self._run_round(request)
            except Preempted:
                self._request_again(request)
                continue
            self._discard_steps()
            if isinstance(action, Become):
                # Even after a signal: the next run reads the object itself.
                self._continue_as(action.workflow_type, action.state)
            # A signal may mean a resume, or a new object of this name: look again before the run ends or pauses.
            if not self._changed:
                match action:
                    case Done(result):
                        return result
                    case Fail(problem):
                        raise refusal_of(problem)
                    case Pause(until):
                        await self._pause(until)
                    case Again():
                        pass
            self._show(done=(), took={})

    async def _pause(self, until: datetime | None) -> None:
        """Sleep between two rounds, until the slow retry's delay is over, a signal arrives, or `until` has come."""
        delay = slow_retry_delay(self._state.round)
        if until is not None and until > workflow.now():
            # 1 s: the worker's clock may be behind the server's.
            delay = min(delay, until - workflow.now() + timedelta(seconds=1))
        self._show(next_retry=workflow.now() + delay)
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._changed, timeout=delay, timeout_summary=f"retry of {self._reference}"
            )
        self._remember(round=self._state.round + 1)
        self._show(round=self._state.round, next_retry=None)

    def _remember(self, **update: Any) -> None:
        self._state = self._state.model_copy(update=update)

    def _request_again(self, request: PendingRequest) -> None:
        self._remember(request=self._state.request | request)

    def _take_request(self) -> PendingRequest:
        request = self._state.request
        self._remember(request=PendingRequest())
        return request

    def _continue_as(self, workflow_type: str, state: RunState) -> NoReturn:
        """Continue in a new history, under the same id.

        Timers do not survive this. The new run reads the object and sets its timers again.
        """
        run = RunInput(namespace=self._reference.namespace, name=self._reference.name, by_hand=False, state=state)
        workflow.continue_as_new(args=[run], workflow=workflow_type)
