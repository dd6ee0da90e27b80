"""The Schedules: created if missing, updated if they differ from the settings, otherwise left unchanged."""

import asyncio
import logging
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from clients.temporal import RPC_TIMEOUT, start_run
from plattr.errors import PlattrError
from plattr.fleet import (
    JITTER_OF_INTERVAL,
    REFERENCES_ID,
    REFERENCES_SCHEDULE_ID,
    RESTORE_ID,
    RESYNC_ID,
    SCHEDULE_ID,
    SPREAD_OF_INTERVAL,
    FleetRun,
)
from plattr.steps import TASK_QUEUE
from workflows.options import LATER
from workflows.references import LookAtReferences
from workflows.resync import ResyncFleet

logger = logging.getLogger(__name__)

# 30 s: how late a preview can end if its end falls into a loss of Temporal's database.
LOOK_SECONDS = 30.0


async def keep_schedule(
    client: Client, interval: timedelta, *, references: timedelta | None = None, task_queue: str = TASK_QUEUE
) -> None:
    """Check repeatedly, until cancelled, that the Schedules exist.

    If the Schedule of ResyncFleet is missing, Temporal has lost its database and with it the timer of every preview.
    The runs then start again at once. A new platform has no runs to start.
    """
    while True:
        try:
            if await _describe(client) is None:
                # Runs come before the Schedule: if a worker dies between the two, the next one still finds the Schedule
                # missing.
                await restore_runs(client, task_queue=task_queue)
            await ensure_schedule(client, interval, task_queue=task_queue)
            if references is not None:
                await _ensure(client, REFERENCES_SCHEDULE_ID, build_references_schedule(references, task_queue))
        except (RPCError, PlattrError) as error:
            logger.warning(
                "cannot look after the schedule, trying again", extra={"cause": " ".join(str(error).split())}
            )
        await asyncio.sleep(LOOK_SECONDS)


async def ensure_schedule(client: Client, interval: timedelta, *, task_queue: str = TASK_QUEUE) -> bool:
    """Create the Schedule, or set its interval from the settings; return whether it was missing.

    A Schedule that a person has paused stays paused.
    """
    return await _ensure(client, SCHEDULE_ID, build_schedule(interval, task_queue=task_queue))


async def _ensure(client: Client, schedule_id: str, wanted: Schedule) -> bool:
    every = [interval.every.total_seconds() for interval in wanted.spec.intervals]
    facts = {"schedule": schedule_id, "interval_seconds": every[0]}
    known = await _describe(client, schedule_id)
    if known is None:
        try:
            await client.create_schedule(schedule_id, wanted, rpc_timeout=RPC_TIMEOUT)
        except ScheduleAlreadyRunningError:
            return False
        logger.info("schedule made", extra=facts)
        return True
    if known.spec.intervals == wanted.spec.intervals and known.spec.jitter == wanted.spec.jitter:
        return False

    def to_settings(update: ScheduleUpdateInput) -> ScheduleUpdate:
        wanted.state = update.description.schedule.state
        return ScheduleUpdate(schedule=wanted)

    await client.get_schedule_handle(schedule_id).update(to_settings, rpc_timeout=RPC_TIMEOUT)
    logger.info("schedule changed", extra=facts)
    return False


async def _describe(client: Client, schedule_id: str = SCHEDULE_ID) -> Schedule | None:
    try:
        return (await client.get_schedule_handle(schedule_id).describe(rpc_timeout=RPC_TIMEOUT)).schedule
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def restore_runs(client: Client, *, task_queue: str = TASK_QUEUE) -> None:
    """Start the runs of all previews and of all objects that have not settled."""
    await start_run(
        client,
        "ResyncFleet",
        FleetRun(purpose="restore"),
        workflow_id=RESTORE_ID,
        summary="begin the runs that Temporal has lost",
        doing="begin the runs that Temporal has lost",
        priority=LATER,
        # Two workers may detect the loss at the same time.
        on_open=WorkflowIDConflictPolicy.USE_EXISTING,
        task_queue=task_queue,
    )


def build_schedule(interval: timedelta, *, task_queue: str = TASK_QUEUE) -> Schedule:
    """Return the Schedule for an interval. A period that is late is skipped, not made up for."""
    return Schedule(
        action=ScheduleActionStartWorkflow(
            ResyncFleet.run,
            FleetRun(spread=interval * SPREAD_OF_INTERVAL),
            id=RESYNC_ID,
            task_queue=task_queue,
            static_summary="look at every object again",
            priority=LATER,
        ),
        spec=ScheduleSpec(
            intervals=[ScheduleIntervalSpec(every=interval)],
            jitter=interval * JITTER_OF_INTERVAL,
        ),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=interval),
    )


def build_references_schedule(interval: timedelta, task_queue: str = TASK_QUEUE) -> Schedule:
    """Return the Schedule that looks for changes in what pods refer to. It needs no jitter, because it only reads."""
    return Schedule(
        action=ScheduleActionStartWorkflow(
            LookAtReferences.run,
            id=REFERENCES_ID,
            task_queue=task_queue,
            static_summary="look for changed Secrets and ConfigMaps",
            priority=LATER,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=interval),
    )
