"""The runs of an Application: provision it until it is settled, clean it up until nothing is left."""

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from plattr.objects import Kind
    from plattr.steps import Problem, RunInput, RunResult
    from workflows.cleanup import CleanupRun
    from workflows.object_run import PendingRequest, Preempted, continue_as
    from workflows.provisioning import ProvisioningRun


@workflow.defn
class ProvisionApplication(ProvisioningRun):
    """Runs from a change of the spec until the Application is settled; closed while nothing is to do."""

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Provision the Application as it is now, and again for as long as it changes meanwhile."""
        reference = run.reference(Kind.APPLICATION)
        self._begin(reference, run)
        self._request_again(PendingRequest(every_step=run.every_step, take_over=run.take_over))
        while True:
            # Whichever way the last round ended: thousands of changes may come while none of them gets through.
            self._continue_if_long(run)
            self._changed = False
            request = self._take_request()
            try:
                outcome = await self._reconcile(reference, request)
            except Preempted:
                self._request_again(request)
                continue

            if self._changed:
                continue
            generation = outcome.claim.generation if outcome.claim else 0
            if outcome.verdict == "deleting":
                continue_as("CleanupApplication", run, cascade=self._cascade)
            if outcome.verdict in ("gone", "paused", "settled"):
                return RunResult(
                    phase=outcome.phase, generation=generation, summary=f"{reference} is {outcome.verdict}"
                )
            if outcome.verdict == "refused":
                raise as_refusal(outcome.problem)
            self._request_unfinished(outcome, request)
            await self._pause(outcome.again_at)

    def _continue_if_long(self, run: RunInput) -> None:
        """Begin a new history before this one grows long; the object is read again there, so nothing is lost."""
        if workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(self._renewed(run))


@workflow.defn
class CleanupApplication(CleanupRun):
    """Runs from the deletion of an Application until nothing of it is left and the finalizer is gone."""

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Take the Application down; started by hand, delete the object first if it is still there."""
        reference = run.reference(Kind.APPLICATION)
        self._begin(reference, run)
        result = await self._clean_up(reference, run)
        if result is None:
            continue_as("ProvisionApplication", run)
        return result


def as_refusal(problem: Problem | None) -> ApplicationError:
    """Return the failure that ends a run which no retry can mend."""
    if problem is None:
        return ApplicationError("refused", non_retryable=True)
    return ApplicationError(problem.message, problem, type=problem.reason, non_retryable=True)
