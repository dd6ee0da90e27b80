"""The periodic check of the Secrets and ConfigMaps that pods refer to."""

from datetime import timedelta

from temporalio import workflow

from workflows.options import HEARTBEAT_TIMEOUT, LATER, START_TO_CLOSE

with workflow.unsafe.imports_passed_through():
    from activities.fleet import FleetActivities
    from activities.references import ReferenceActivities
    from plattr.fleet import ChangedReferences, FleetBatch, FleetResult, ReferencesQuery

# 500: some 1,500 reads of metadata take a few seconds; an attempt may take 60.
PAGE = 500


@workflow.defn
class LookAtReferences:
    """Requests a reconcile of each object whose Secrets or ConfigMaps have changed; a Schedule starts it."""

    @workflow.run
    async def run(self) -> FleetResult:
        """Check every object once. The next period starts again, so nothing is carried over."""
        requested, refused, page = 0, 0, ChangedReferences()
        while True:
            page = await workflow.execute_activity_method(
                ReferenceActivities.find_changed_references,
                ReferencesQuery(after=page.after, limit=PAGE),
                start_to_close_timeout=START_TO_CLOSE,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                priority=LATER,
                summary=f"objects after {page.after!r}",
            )
            if page.members:
                progress = await workflow.execute_activity_method(
                    FleetActivities.request_reconciles,
                    FleetBatch(members=page.members, purpose="resync", pause=timedelta(0)),
                    start_to_close_timeout=START_TO_CLOSE,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    priority=LATER,
                    summary=f"{len(page.members)} objects from {page.members[0].reference}",
                )
                requested += progress.requested - len(progress.refused)
                refused += len(progress.refused)
            if not page.after:
                return FleetResult(requested=requested, refused=refused)
