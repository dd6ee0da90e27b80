"""ResyncFleet: its pace, its pages, and the Schedule that begins it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from plattr.errors import BackendRefused, BackendUnavailable
from plattr.fleet import (
    RESTORE_ID,
    SCHEDULE_ID,
    FleetResult,
    FleetRun,
    Member,
    batch_size,
    pause_between,
)
from plattr.objects import ObjectReference
from tests.workflows.conftest import Stage
from tests.workflows.fakes import eventually
from worker import schedule
from worker.schedule import ensure_schedule, restore_runs
from workflows.resync import BATCH_TIME, PAGE, ResyncFleet

HALF_HOUR = timedelta(minutes=30)


def fleet(count: int) -> list[Member]:
    return [Member(reference=ObjectReference(namespace="team", name=f"app-{number:05}")) for number in range(count)]


async def period(
    stage: Stage, spread: timedelta, purpose: Literal["resync", "restore"] = "resync"
) -> tuple[FleetResult, timedelta]:
    """Run one period; return its result and how long the runs of its chain took by the server's clock.

    Each from the beginning of its first turn: on an idle machine the server, which skips time, puts what an earlier run
    of the chain has skipped before the first turn of a later one once more, where nothing waits.
    """
    run_id = f"fleet-{uuid.uuid4()}"
    client = stage.environment.client
    handle = await client.start_workflow(
        ResyncFleet.run,
        FleetRun(spread=spread, purpose=purpose),
        id=run_id,
        task_queue=stage.task_queue,
        run_timeout=timedelta(days=1),
    )
    result = await handle.result()
    took, run = timedelta(0), handle.first_execution_run_id
    while run:
        # Started, its first turn scheduled, and begun.
        _, _, *events = (await client.get_workflow_handle(run_id, run_id=run).fetch_history()).events
        took += events[-1].event_time.ToDatetime() - events[0].event_time.ToDatetime()
        run = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return result, took


@pytest.mark.parametrize("count", [0, 1, 7, 300], ids=lambda count: f"{count}-objects")
async def test_every_object_is_requested_once_spread_over_the_period(stage: Stage, count: int) -> None:
    stage.platform.members = fleet(count)

    result, took = await period(stage, timedelta(minutes=24))

    requested = [member for batch in stage.platform.requests for member in batch.members]
    assert requested == stage.platform.members
    assert result.requested == count
    if count:
        # The fakes do not sleep inside a batch; the run makes up for that.
        assert timedelta(minutes=24) <= took < timedelta(minutes=25)


async def test_many_objects_are_paged_and_the_pace_is_kept(stage: Stage) -> None:
    stage.platform.members = fleet(2 * PAGE + 10)

    result, took = await period(stage, timedelta(minutes=24))

    assert stage.platform.calls.count("list_fleet") == 3
    assert len({batch.pause for batch in stage.platform.requests}) == 1
    assert [member for batch in stage.platform.requests for member in batch.members] == stage.platform.members
    assert result.requested == 2 * PAGE + 10
    assert timedelta(minutes=24) <= took < timedelta(minutes=26)


async def test_without_a_spread_all_are_requested_at_once(stage: Stage) -> None:
    stage.platform.members = fleet(40)

    await period(stage, timedelta(0))

    assert [len(batch.members) for batch in stage.platform.requests] == [40]


async def test_a_batch_that_ended_early_is_gone_on_with(stage: Stage) -> None:
    stage.platform.members = fleet(10)
    stage.platform.requested_per_call = 3

    await period(stage, timedelta(0))

    assert [member for batch in stage.platform.requests for member in batch.members] == stage.platform.members


async def test_an_api_server_that_is_away_only_delays_the_period(stage: Stage) -> None:
    stage.platform.members = fleet(5)
    stage.platform.failures["list_fleet"] = [BackendUnavailable("cannot reach it") for _ in range(20)]

    result, _ = await period(stage, timedelta(minutes=1))

    assert result.requested == 5


def requested(stage: Stage) -> list[Member]:
    return [member for batch in stage.platform.requests for member in batch.members]


async def test_an_object_that_is_refused_is_passed_over_and_counted(stage: Stage) -> None:
    stage.platform.members = fleet(2 * PAGE + 10)
    broken = stage.platform.members[3]
    stage.platform.refuses = lambda member: member == broken

    result, took = await period(stage, timedelta(0))

    assert requested(stage) == [member for member in stage.platform.members if member != broken]
    assert result == FleetResult(requested=2 * PAGE + 9, refused=1)
    assert took < timedelta(seconds=30)


async def test_a_last_page_of_refused_objects_does_not_hold_up_the_next_period(stage: Stage) -> None:
    stage.platform.members = fleet(PAGE + 1)
    stage.platform.refuses = lambda member: member == stage.platform.members[-1]

    result, took = await period(stage, timedelta(0))

    assert result == FleetResult(requested=PAGE, refused=1)
    assert took < timedelta(seconds=30)


@pytest.mark.parametrize("purpose", ["resync", "restore"])
async def test_when_all_are_refused_the_run_goes_on_until_they_are_not(
    stage: Stage, purpose: Literal["resync", "restore"]
) -> None:
    stage.platform.members = fleet(5)
    refusals = iter([True] * 5 * 12)
    stage.platform.refuses = lambda _: next(refusals, False)

    result, took = await period(stage, timedelta(minutes=10), purpose)

    assert requested(stage) == stage.platform.members
    assert result == FleetResult(requested=5)
    assert took > timedelta(hours=1)


async def test_a_restore_tries_what_was_refused_once_more(stage: Stage) -> None:
    """The search attributes may be made while it is at work."""
    stage.platform.members = fleet(5)
    refusals = iter([True, True])
    stage.platform.refuses = lambda _: next(refusals, False)

    result, _ = await period(stage, timedelta(0), "restore")

    first = stage.platform.members[:2]
    assert requested(stage) == [*stage.platform.members[2:], *first]
    assert result == FleetResult(requested=5)


async def test_a_restore_gives_a_single_object_up_after_half_an_hour(stage: Stage) -> None:
    stage.platform.members = fleet(5)
    stage.platform.refuses = lambda member: member == stage.platform.members[0]

    result, took = await period(stage, timedelta(0), "restore")

    assert result == FleetResult(requested=4, refused=1)
    assert timedelta(minutes=25) < took < timedelta(minutes=30)


async def test_an_api_server_that_refuses_the_list_only_delays_the_period(stage: Stage) -> None:
    stage.platform.members = fleet(5)
    stage.platform.failures["list_fleet"] = [BackendRefused("no right") for _ in range(3)]

    result, took = await period(stage, timedelta(0))

    assert result.requested == 5
    assert took > timedelta(seconds=30 + 60 + 120)


@pytest.mark.parametrize(
    ("objects", "expected"), [(1, 1), (1000, 13), (10000, 138)], ids=["one", "thousand", "ten-thousand"]
)
def test_a_batch_ends_before_its_attempt_is_given_up(objects: int, expected: int) -> None:
    pause = pause_between(HALF_HOUR * 0.8, objects)

    size = batch_size(pause, BATCH_TIME, PAGE)

    assert size == expected
    assert size == 1 or pause * size <= BATCH_TIME


@pytest.fixture
async def client(skipping: WorkflowEnvironment) -> AsyncIterator[Client]:
    yield skipping.client
    await skipping.client.get_schedule_handle(SCHEDULE_ID).delete()


async def test_the_schedule_is_made_once_and_follows_the_settings(client: Client) -> None:
    queue = f"test-{uuid.uuid4()}"

    made = [await ensure_schedule(client, HALF_HOUR, task_queue=queue) for _ in range(2)]
    before = (await client.get_schedule_handle(SCHEDULE_ID).describe()).info.last_updated_at
    await ensure_schedule(client, HALF_HOUR, task_queue=queue)
    unchanged = (await client.get_schedule_handle(SCHEDULE_ID).describe()).info.last_updated_at
    await ensure_schedule(client, timedelta(hours=2), task_queue=queue)
    description = await client.get_schedule_handle(SCHEDULE_ID).describe()

    assert made == [True, False]
    assert unchanged == before
    assert [interval.every for interval in description.schedule.spec.intervals] == [timedelta(hours=2)]
    assert description.schedule.spec.jitter == timedelta(minutes=12)
    assert description.info.next_action_times[0] - datetime.now(UTC) <= timedelta(hours=2, minutes=12)


async def test_a_schedule_that_a_person_paused_stays_paused(client: Client) -> None:
    queue = f"test-{uuid.uuid4()}"
    await ensure_schedule(client, HALF_HOUR, task_queue=queue)
    await client.get_schedule_handle(SCHEDULE_ID).pause(note="moving house")

    await ensure_schedule(client, timedelta(hours=1), task_queue=queue)

    state = (await client.get_schedule_handle(SCHEDULE_ID).describe()).schedule.state
    assert state.paused
    assert state.note == "moving house"


async def test_a_worker_that_dies_after_it_began_the_restore_leaves_it_to_the_next_one(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.platform.members = fleet(3)
    ensure = schedule.ensure_schedule

    async def die(*_: object, **__: object) -> bool:
        raise asyncio.CancelledError

    monkeypatch.setattr(schedule, "ensure_schedule", die)
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await schedule.keep_schedule(client, HALF_HOUR, task_queue=stage.task_queue)
        await client.get_workflow_handle(RESTORE_ID).result()
    restored = len(stage.platform.requests)
    monkeypatch.setattr(schedule, "ensure_schedule", ensure)
    keeping = asyncio.create_task(schedule.keep_schedule(client, HALF_HOUR, task_queue=stage.task_queue))
    async with asyncio.timeout(20):
        while not await is_scheduled(client):
            await asyncio.sleep(0.05)
    keeping.cancel()
    await client.get_workflow_handle(RESTORE_ID).result()

    assert restored == 2
    assert {batch.purpose for batch in stage.platform.requests} == {"restore"}


async def is_scheduled(client: Client) -> bool:
    try:
        await client.get_schedule_handle(SCHEDULE_ID).describe()
    except RPCError:
        return False
    return True


async def test_the_schedule_begins_a_period(stage: Stage, client: Client) -> None:
    stage.platform.members = fleet(3)
    await ensure_schedule(client, timedelta(seconds=2), task_queue=stage.task_queue)

    await client.get_schedule_handle(SCHEDULE_ID).trigger()
    await eventually(lambda: len(stage.platform.requests) >= 3)

    assert {batch.purpose for batch in stage.platform.requests} == {"resync"}


async def test_lost_runs_are_restored_once_however_many_workers_notice(stage: Stage, client: Client) -> None:
    stage.platform.members = fleet(3)
    await ensure_schedule(client, HALF_HOUR, task_queue=stage.task_queue)

    for _ in range(2):
        await restore_runs(client, task_queue=stage.task_queue)
    await client.get_workflow_handle(RESTORE_ID).result()

    assert {batch.purpose for batch in stage.platform.requests} == {"restore"}
    assert stage.platform.requests[0].members == tuple(stage.platform.members)
