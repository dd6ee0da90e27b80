"""The runs of a preview: its workflow is its timer, from the first poke to its end."""

import asyncio
from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.preview import PreviewActivities
    from plattr.objects import Kind, ObjectReference
    from plattr.steps import (
        CLEANUP_ORDER,
        ClaimInput,
        ExpiryInput,
        PreviewTerms,
        RunInput,
        RunResult,
        Step,
    )
    from workflows.application import as_refusal
    from workflows.cleanup import CleanupRun
    from workflows.object_run import CalledOff, StepFailed, continue_as
    from workflows.provisioning import PassOutcome, ProvisioningRun


@workflow.defn
class PreviewLifecycle(ProvisioningRun):
    """Provisions a preview, sleeps until its time is over, then deletes the object and becomes its cleanup."""

    def __init__(self) -> None:
        super().__init__()
        self._clock: asyncio.Task[None] | None = None

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Keep the preview as its object says, until creation plus ttl, whatever restarts happen meanwhile."""
        reference = run.reference(Kind.PREVIEW)
        self._begin(reference, run.round)
        self._every_step = self._every_step or run.every_step
        while True:
            self._changed = False
            every_step, self._every_step = self._every_step, False
            try:
                terms = await self._read_terms(reference)
                if terms.verdict == "gone":
                    return RunResult(phase=None, summary=f"{reference} is gone")
                if terms.verdict == "deleting" or await self._expire_if_over(reference, terms):
                    continue_as("CleanupPreview", run)
                self._set_clock(terms)
                outcome = await self._pass(reference, every_step=every_step)
                if outcome.verdict == "paused":
                    # Hands off means the clock too; taking the annotation away pokes the object again.
                    return RunResult(phase=None, summary=f"{reference} is paused")
                await self._rest(outcome)
            except CalledOff:
                self._every_step = self._every_step or every_step
            except StepFailed as failure:
                outcome = await self._give_up(reference, None, {}, {failure.step: failure.problem})
                if outcome.verdict == "refused":
                    # A ttl that says nothing: without an end there is no timer to keep.
                    raise as_refusal(outcome.problem) from None
                await self._pause()
            if workflow.info().is_continue_as_new_suggested():
                # The clock is set anew from the object: timers do not survive continue-as-new.
                workflow.continue_as_new(
                    run.model_copy(
                        update={"round": self._progress.round, "every_step": self._every_step, "by_hand": False}
                    )
                )

    async def _read_terms(self, reference: ObjectReference) -> PreviewTerms:
        return await self._perform(Step.TERMS, PreviewActivities.read_terms, ClaimInput(reference=reference))

    async def _expire_if_over(self, reference: ObjectReference, terms: PreviewTerms) -> bool:
        """Delete the object when its time is over, warn when it is nearly; return whether it was deleted."""
        if terms.expires_at is None or terms.warn_at is None:
            return False
        argument = ExpiryInput(reference=reference, uid=terms.uid, expires_at=terms.expires_at)
        if terms.expires_at <= workflow.now():
            await self._perform(Step.EXPIRY, PreviewActivities.delete_expired, argument)
            return True
        if (terms.warn_at <= workflow.now()) is not terms.is_warned:
            await self._perform(Step.EXPIRY, PreviewActivities.warn_of_expiry, argument)
        return False

    def _set_clock(self, terms: PreviewTerms) -> None:
        """Wake the run at the warning and at the end, also in the middle of a step or a pause."""
        if self._clock is not None:
            self._clock.cancel()
        moments = [moment for moment in (terms.warn_at, terms.expires_at) if moment and moment > workflow.now()]
        self._clock = asyncio.create_task(self._ring(moments[0])) if moments else None

    async def _ring(self, moment: datetime) -> None:
        await workflow.sleep(moment - workflow.now(), summary=f"{self._reference} until {moment:%Y-%m-%d %H:%M:%S} UTC")
        self._changed = True

    async def _rest(self, outcome: PassOutcome) -> None:
        """Wait until something changes; what failed is tried again slowly."""
        if outcome.verdict == "failed":
            await self._pause()
        elif not self._changed:
            # Refused or settled: only a change, or the clock, has anything to do.
            await workflow.wait_condition(lambda: self._changed)


@workflow.defn
class CleanupPreview(CleanupRun):
    """Removes everything of a preview, its namespace last, whether or not its parent is still there."""

    steps = (*CLEANUP_ORDER, Step.NAMESPACE, Step.RELEASE)

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Take the preview down; started by hand, delete the object first if it is still there."""
        reference = run.reference(Kind.PREVIEW)
        self._begin(reference, run.round)
        if await self._clean_up(reference, run) == "recreated":
            continue_as("PreviewLifecycle", run)
        return RunResult(phase=None, summary=f"nothing of {reference} is left")
