"""The runs of an Application: provision it until it is settled, clean it up until nothing is left."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from plattr.objects import Kind
    from plattr.steps import PendingRequest, RunInput, RunResult, RunState
    from workflows.cleanup import CleanupRun
    from workflows.next_action import Become, Done, Fail, NextAction, Pause
    from workflows.provisioning import ProvisioningRun


@workflow.defn
class ProvisionApplication(ProvisioningRun):
    """Runs from a change of the spec until the Application is settled. No run is open while nothing is to do."""

    kind = Kind.APPLICATION

    @workflow.run
    async def run(self, _run: RunInput) -> RunResult:
        """Provision the Application as it is now, and again whenever it changes meanwhile."""
        return await self._run_rounds()

    async def _run_round(self, request: PendingRequest) -> NextAction:
        """Run the steps once."""
        asked_to_purge = self._state.purge
        outcome = await self._reconcile(request)
        if outcome.verdict == "gone" and self._state.purge:
            return self._become_purge("CleanupApplication")
        if outcome.claim is not None:
            # Without a claim, for example while the API server is away, nothing says that the object lives.
            self._end_purge(was_asked=asked_to_purge)
        match outcome.verdict:
            case "deleting":
                return Become("CleanupApplication", RunState(cascade=self._state.cascade))
            case "refused":
                return Fail(outcome.problem)
            case "failed":
                return Pause(outcome.again_at)
        return Done(
            RunResult(
                phase=outcome.phase,
                generation=outcome.claim.generation if outcome.claim else 0,
                summary=f"{self._reference} is {outcome.verdict}",
            )
        )


@workflow.defn
class CleanupApplication(CleanupRun):
    """Runs from the deletion of an Application until nothing of it is left and the finalizer is gone."""

    kind = Kind.APPLICATION
    successor = "ProvisionApplication"

    @workflow.run
    async def run(self, _run: RunInput) -> RunResult:
        """Take the Application down. A run that a person started deletes the object first."""
        return await self._run_rounds()
