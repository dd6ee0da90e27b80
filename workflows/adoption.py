"""What an operator starts with `plattr adopt`: one look, or the taking over of what was approved."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.adoption import AdoptionActivities
    from plattr.adoption import Adoption, AdoptionInput
    from workflows.options import HEARTBEAT_TIMEOUT, START_TO_CLOSE, STEP_RETRIES


@workflow.defn
class AdoptResources:
    """Takes over, for one object, what is marked as another's. Who may start it is Temporal's affair: no tenant."""

    @workflow.run
    async def run(self, adoption: AdoptionInput) -> Adoption:
        """Return what there is to take over, and what was taken over."""
        return await workflow.execute_activity_method(
            AdoptionActivities.adopt_resources,
            adoption,
            start_to_close_timeout=START_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRIES,
            summary=f"{len(adoption.approved)} resources for {adoption.reference}",
        )
