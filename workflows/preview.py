"""The runs of a preview: its workflow is its timer, from the first reconcile request to its end."""

import asyncio
from datetime import datetime
from typing import Literal

from temporalio import workflow
from temporalio.common import Priority

with workflow.unsafe.imports_passed_through():
    from activities.preview import PreviewActivities
    from plattr.objects import Kind, ObjectReference
    from plattr.steps import ClaimInput, ExpiryInput, Lifetime, RunInput, RunResult, Step
    from workflows.application import as_refusal
    from workflows.cleanup import CleanupRun
    from workflows.object_run import PendingRequest, Preempted, StepFailed, continue_as
    from workflows.options import LATER
    from workflows.provisioning import ProvisioningRun, ReconcileOutcome

NextAction = Literal["again", "over", "gone", "paused"]


@workflow.defn
class PreviewLifecycle(ProvisioningRun):
    """Provisions a preview, sleeps until its time is over, then deletes the object and becomes its cleanup."""

    def __init__(self) -> None:
        super().__init__()
        self._clock: asyncio.Task[None] | None = None
        self._rings_at: datetime | None = None
        self._has_rung = False
        self._lifetime: Lifetime | None = None

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Keep the preview as its object says, until creation plus ttl, whatever restarts happen meanwhile."""
        reference = run.reference(Kind.PREVIEW)
        self._begin(reference, run)
        self._request_again(PendingRequest(every_step=run.every_step, take_over=run.take_over))
        while True:
            self._changed = False
            request = self._take_request()
            try:
                action = await self._reconcile_once(reference, request)
            except Preempted:
                self._request_again(request)
                action = "again"
            if action == "over":
                continue_as("CleanupPreview", run, cascade=self._cascade)
            # A signal that came in meanwhile may be a resume, or a new object of this name.
            if action != "again" and not self._changed:
                return RunResult(phase=None, summary=f"{reference} is {action}")
            if workflow.info().is_continue_as_new_suggested():
                # The clock is set again from the object: timers do not survive continue-as-new.
                workflow.continue_as_new(self._renewed(run))

    async def _reconcile_once(self, reference: ObjectReference, request: PendingRequest) -> NextAction:
        """Do what the object asks for now, then wait for the next change; return how to go on."""
        try:
            # When the end has come the deletion itself looks whether the object still says so: one call less between
            # the two, and thousands less when thousands end in one second.
            if not (self._has_rung and self._is_over()):
                answer = await self._perform(
                    Step.LIFETIME, PreviewActivities.read_lifetime, ClaimInput(reference=reference)
                )
                self._lifetime = answer.lifetime
                if answer.verdict in ("gone", "paused"):
                    # A pause stops the clock too; removing the annotation causes another reconcile request.
                    return answer.verdict
            self._has_rung = False
            if self._lifetime is None or await self._expire_if_over(reference, self._lifetime):
                return "over"
        except StepFailed as failure:
            outcome = await self._report_failure(reference, None, {}, {failure.step: failure.problem})
            if outcome.verdict == "refused" and not self._changed:
                # A ttl that says nothing: without an end there is no timer to keep.
                raise as_refusal(outcome.problem) from None
            self._request_unfinished(outcome, request)
            await self._pause()
            return "again"

        self.priority = Priority.default
        outcome = await self._reconcile(reference, request)
        if outcome.verdict == "paused":
            return "paused"
        if outcome.verdict in ("failed", "refused"):
            self._request_unfinished(outcome, request)
        if outcome.verdict == "failed":
            await self._pause(outcome.again_at)
        elif outcome.verdict in ("settled", "refused"):
            await self._rest(outcome)
        return "again"

    async def _expire_if_over(self, reference: ObjectReference, lifetime: Lifetime) -> bool:
        """Delete the object when its time is over, warn when it is nearly; return whether it was deleted."""
        argument = ExpiryInput(reference=reference, uid=lifetime.uid, expires_at=lifetime.expires_at)
        if self._is_over():
            await self._perform(Step.EXPIRY, PreviewActivities.delete_expired, argument)
            return True
        # Before the warning: while that is tried again, the end may come.
        self._set_clock(lifetime)
        is_due = lifetime.warn_at <= workflow.now()
        if lifetime.warning != ("current" if is_due else "none"):
            argument = argument.model_copy(update={"is_due": is_due})
            await self._perform(Step.EXPIRY, PreviewActivities.warn_of_expiry, argument)
        return False

    def _is_over(self) -> bool:
        return self._lifetime is not None and self._lifetime.expires_at <= workflow.now()

    def _set_clock(self, lifetime: Lifetime) -> None:
        """Wake the run at the warning and at the end, also in the middle of a step or a pause."""
        moment = lifetime.warn_at if lifetime.warn_at > workflow.now() else lifetime.expires_at
        if self._clock is not None:
            if moment == self._rings_at and not self._clock.done():
                return
            self._clock.cancel()
        self._rings_at = moment
        self._clock = asyncio.create_task(self._ring(moment))

    async def _ring(self, moment: datetime) -> None:
        await workflow.sleep(moment - workflow.now(), summary=f"{self._reference} until {moment:%Y-%m-%d %H:%M:%S} UTC")
        # Thousands may ring in one second; who applies an object at that moment must not stand in their queue.
        self.priority = LATER
        self._has_rung = True
        self._changed = True

    async def _rest(self, outcome: ReconcileOutcome) -> None:
        """Wait for a change or the clock: refused or settled, there is nothing else to do."""
        # Unlike an Application's, this run goes on: the next outage has its retries counted from the beginning.
        self._show(step=None, attempt=0, round=1, phase=outcome.phase or self._progress.phase)
        await workflow.wait_condition(lambda: self._changed)
        self._show(done=(), took={})


@workflow.defn
class CleanupPreview(CleanupRun):
    """Removes everything of a preview, its namespace last, whether or not its parent is still there."""

    priority = LATER

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Take the preview down; started by hand, delete the object first if it is still there."""
        reference = run.reference(Kind.PREVIEW)
        self._begin(reference, run)
        result = await self._clean_up(reference, run)
        if result is None:
            continue_as("PreviewLifecycle", run)
        return result
