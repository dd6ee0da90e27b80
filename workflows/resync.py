"""The periodic resync of every object, which repairs drift."""

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from workflows.options import HEARTBEAT_TIMEOUT, LATER, START_TO_CLOSE, slow_retry_delay

with workflow.unsafe.imports_passed_through():
    from activities.fleet import FleetActivities
    from plattr.fleet import (
        FleetBatch,
        FleetPage,
        FleetProgress,
        FleetQuery,
        FleetResult,
        FleetRun,
        Member,
        batch_size,
        pause_between,
    )

# 500 references are some 60 kB of history. Ten thousand objects need twenty runs, each continued as new.
PAGE = 500
# 20 s: an attempt may take 60 s, and a stopping worker waits 25 s for it.
BATCH_TIME = timedelta(seconds=20)
# 6: after 30 s, then 1, 2, 4, 8 and 10 minutes.
RESTORE_ROUNDS = 6


@workflow.defn
class ResyncFleet:
    """Sends `repair` to every object, evenly spread. A Schedule starts it (worker/schedule.py)."""

    @workflow.run
    async def run(self, run: FleetRun) -> FleetResult:
        """Request a reconcile of one page, then continue as new with the next; retry while a server is away."""
        page = await self._list(run)
        pause = run.pause if run.pause is not None else pause_between(run.spread, page.remaining)
        refused = await self._request_all(page.members, run, pause)
        rounds = 0
        while refused and self._is_owed(refused, page, run, rounds):
            rounds += 1
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(run.model_copy(update={"pause": pause}))
            await workflow.sleep(slow_retry_delay(rounds), summary="until the refused objects' next try")
            refused = await self._request_all(refused, run, timedelta(0))
        counts = {
            "requested": run.requested + len(page.members) - len(refused),
            "refused": run.refused + len(refused),
        }
        if page.remaining > len(page.members):
            last = page.members[-1].reference.key
            workflow.continue_as_new(run.model_copy(update={"after": last, "pause": pause, **counts}))
        return FleetResult(**counts)

    def _is_owed(self, refused: Sequence[Member], page: FleetPage, run: FleetRun, rounds: int) -> bool:
        """Tell whether to send the refused requests again.

        If every request is refused, the cause is in Temporal, not in the objects. A single object is skipped, because
        the next period has it again. A restore has no next period, so it retries for half an hour.
        """
        is_everybody = run.requested == 0 and len(refused) == len(page.members)
        return is_everybody or (run.purpose == "restore" and rounds < RESTORE_ROUNDS)

    async def _list(self, run: FleetRun) -> FleetPage:
        rounds = 0
        while True:
            try:
                return await workflow.execute_activity_method(
                    FleetActivities.list_fleet,
                    FleetQuery(purpose=run.purpose, after=run.after, limit=PAGE),
                    start_to_close_timeout=START_TO_CLOSE,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    priority=LATER,
                    summary=f"objects after {run.after!r}",
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
            # The activity retries by itself, unless the API server refuses the list.
            rounds += 1
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(run)
            await workflow.sleep(slow_retry_delay(rounds), summary="until the API server may list again")

    async def _request_all(self, members: Sequence[Member], run: FleetRun, pause: timedelta) -> list[Member]:
        """Request a reconcile of each member in turn; return those that were refused."""
        left, refused = list(members), list[Member]()
        size = batch_size(pause, BATCH_TIME, PAGE)
        while left:
            # However long the batch takes, the next one begins on time.
            due = workflow.now() + pause * min(size, len(left))
            progress = await self._request(left[:size], run, pause)
            left = left[progress.requested :]
            refused += progress.refused
            if due > workflow.now():
                await workflow.sleep(due - workflow.now(), summary="until the next objects")
        return refused

    async def _request(self, members: list[Member], run: FleetRun, pause: timedelta) -> FleetProgress:
        return await workflow.execute_activity_method(
            FleetActivities.request_reconciles,
            FleetBatch(members=tuple(members), purpose=run.purpose, pause=pause),
            start_to_close_timeout=START_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            priority=LATER,
            summary=f"{len(members)} objects from {members[0].reference}",
        )
