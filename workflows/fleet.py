"""The period in which every object is looked at again, so that drift is repaired."""

from datetime import timedelta

from temporalio import workflow

from workflows.options import HEARTBEAT_TIMEOUT, LATER, START_TO_CLOSE

with workflow.unsafe.imports_passed_through():
    from activities.fleet import FleetActivities
    from plattr.fleet import (
        FleetBatch,
        FleetPage,
        FleetQuery,
        FleetResult,
        FleetRun,
        Member,
        batch_size,
        pause_between,
    )

# 500 references are some 60 kB of history; ten thousand objects are twenty runs that continue each other.
PAGE = 500
# 20 s: an attempt may take 60 s, and a worker that stops waits 25 s for it.
BATCH_TIME = timedelta(seconds=20)


@workflow.defn
class ResyncFleet:
    """Pokes every object with `repair`, evenly spread; begun by a Schedule (worker/schedule.py)."""

    @workflow.run
    async def run(self, run: FleetRun) -> FleetResult:
        """Poke one page, then continue as new with the next; retried for as long as the API server is away."""
        query = FleetQuery(purpose=run.purpose, after=run.after, limit=PAGE)
        page: FleetPage = await workflow.execute_activity_method(
            FleetActivities.list_fleet,
            query,
            start_to_close_timeout=START_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            priority=LATER,
            summary=f"objects after {run.after!r}",
        )
        pause = run.pause if run.pause is not None else pause_between(run.spread, page.remaining)
        members = list(page.members)
        size = batch_size(pause, BATCH_TIME, PAGE)
        while members:
            # Whatever the batch took, the next one begins at its own moment.
            due = workflow.now() + pause * min(size, len(members))
            members = members[await self._poke(members[:size], run, pause) :]
            if due > workflow.now():
                await workflow.sleep(due - workflow.now(), summary="until the next objects' turn")
        poked = run.poked + len(page.members)
        if page.remaining > len(page.members):
            last = page.members[-1].reference.key
            workflow.continue_as_new(run.model_copy(update={"after": last, "pause": pause, "poked": poked}))
        return FleetResult(poked=poked)

    async def _poke(self, members: list[Member], run: FleetRun, pause: timedelta) -> int:
        progress = await workflow.execute_activity_method(
            FleetActivities.poke_fleet,
            FleetBatch(members=tuple(members), purpose=run.purpose, pause=pause),
            start_to_close_timeout=START_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            priority=LATER,
            summary=f"{len(members)} objects from {members[0].reference}",
        )
        return progress.poked
