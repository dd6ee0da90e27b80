"""The run that `plattr adopt` starts: it lists what an object can adopt, or adopts what a person approved."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.adoption import AdoptionActivities
    from plattr.adoption import Adoption, AdoptionInput
    from workflows.options import HEARTBEAT_TIMEOUT, START_TO_CLOSE, STEP_RETRIES


@workflow.defn
class AdoptResources:
    """Adopts resources of another owner for one object. Temporal decides who may start it; a tenant may not."""

    @workflow.run
    async def run(self, adoption: AdoptionInput) -> Adoption:
        """Return what the object can adopt, and what it has adopted."""
        return await workflow.execute_activity_method(
            AdoptionActivities.adopt_resources,
            adoption,
            start_to_close_timeout=START_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRIES,
            summary=f"{len(adoption.approved)} resources for {adoption.reference}",
        )
