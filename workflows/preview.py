"""The runs of a preview: its workflow is its timer, from the first reconcile request to its end."""

import asyncio
from datetime import datetime

from temporalio import workflow
from temporalio.common import Priority

with workflow.unsafe.imports_passed_through():
    from activities.preview import PreviewActivities
    from plattr.features import Step
    from plattr.objects import Kind
    from plattr.steps import ClaimInput, ExpiryInput, Lifetime, PendingRequest, RunInput, RunResult, RunState
    from workflows.cleanup import CleanupRun
    from workflows.next_action import Again, Become, Done, Fail, NextAction, Pause
    from workflows.options import LATER
    from workflows.provisioning import ProvisioningRun, ReconcileOutcome
    from workflows.step_runner import StepFailed


@workflow.defn
class PreviewLifecycle(ProvisioningRun):
    """Provisions a preview, sleeps until its time is over, then deletes the object and becomes its cleanup."""

    kind = Kind.PREVIEW

    @workflow.init
    def __init__(self, run: RunInput) -> None:
        super().__init__(run)
        self._clock: asyncio.Task[None] | None = None
        self._rings_at: datetime | None = None
        self._has_rung = False
        self._lifetime: Lifetime | None = None

    @workflow.run
    async def run(self, _run: RunInput) -> RunResult:
        """Keep the preview as its object says, until creation plus ttl, across restarts and new histories."""
        return await self._run_rounds()

    async def _run_round(self, request: PendingRequest) -> NextAction:
        """Read the lifetime and run the steps once. If there is nothing to retry, wait for a signal or the clock."""
        asked_to_purge = self._state.purge
        try:
            # At the end, the deletion itself checks whether the object still ends now. That saves one call between
            # the end and the deletion, and thousands of calls when thousands of previews end in one second.
            if not (self._has_rung and self._is_over()):
                answer = await self._perform(
                    Step.LIFETIME, PreviewActivities.read_lifetime, ClaimInput(reference=self._reference)
                )
                self._lifetime = answer.lifetime
                if answer.verdict == "gone" and self._state.purge:
                    return self._become_purge("CleanupPreview")
                self._end_purge(was_asked=asked_to_purge)
                if answer.verdict in ("gone", "paused"):
                    # A pause stops the clock too. Removing the annotation causes another reconcile request.
                    return Done(RunResult(phase=None, summary=f"{self._reference} is {answer.verdict}"))
            self._has_rung = False
            if self._lifetime is None or await self._expire_if_over(self._lifetime):
                return Become("CleanupPreview", RunState(cascade=self._state.cascade))
        except StepFailed as failure:
            outcome = await self._report_failure(None, {}, {failure.step: failure.problem})
            self._request_unfinished(outcome, request)
            # An unreadable ttl is refused: without an end there is no timer to keep the run open for.
            return Fail(outcome.problem) if outcome.verdict == "refused" else Pause()

        self.priority = Priority.default
        outcome = await self._reconcile(request)
        match outcome.verdict:
            case "paused":
                return Done(RunResult(phase=None, summary=f"{self._reference} is paused"))
            case "failed":
                return Pause(outcome.again_at)
            case "settled" | "refused":
                await self._rest(outcome)
        return Again()

    async def _expire_if_over(self, lifetime: Lifetime) -> bool:
        """Delete the object when its time is over, warn shortly before; return whether it was deleted."""
        argument = ExpiryInput(reference=self._reference, uid=lifetime.uid, expires_at=lifetime.expires_at)
        if self._is_over():
            await self._perform(Step.EXPIRY, PreviewActivities.delete_expired, argument)
            return True
        # Before the warning: the end may come while the warning is retried.
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
        # Thousands of previews may end in one second. A person who applies an object then must not wait behind them.
        self.priority = LATER
        self._has_rung = True
        self._changed = True

    async def _rest(self, outcome: ReconcileOutcome) -> None:
        """Wait for a signal or the clock: a settled or refused preview has nothing else to do."""
        # An Application's run closes here. This run goes on, so the next outage counts its rounds from the first.
        self._remember(round=1)
        self._show(step=None, attempt=0, round=1, phase=outcome.phase or self._progress.phase)
        await workflow.wait_condition(lambda: self._changed)


@workflow.defn
class CleanupPreview(CleanupRun):
    """Removes everything of a preview, its namespace last, whether or not its parent still exists."""

    kind = Kind.PREVIEW
    successor = "PreviewLifecycle"
    priority = LATER

    @workflow.run
    async def run(self, _run: RunInput) -> RunResult:
        """Take the preview down. A run that a person started deletes the object first."""
        return await self._run_rounds()
