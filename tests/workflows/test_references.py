"""LookAtReferences: its pages and reconcile requests, and the Schedule that begins it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from plattr.fleet import REFERENCES_SCHEDULE_ID, SCHEDULE_ID, FleetResult, Member
from plattr.objects import ObjectReference
from tests.workflows.conftest import Stage
from worker import schedule
from workflows.references import PAGE, LookAtReferences

HALF_HOUR = timedelta(minutes=30)


def fleet(count: int) -> list[Member]:
    return [Member(reference=ObjectReference(namespace="team", name=f"app-{number:05}")) for number in range(count)]


async def look(stage: Stage) -> FleetResult:
    run_id = f"references-{uuid.uuid4()}"
    return await stage.environment.client.execute_workflow(LookAtReferences.run, id=run_id, task_queue=stage.task_queue)


async def test_only_those_whose_references_have_changed_are_requested(stage: Stage) -> None:
    stage.platform.members = fleet(2 * PAGE + 3)
    stage.platform.changed = {"app-00001", f"app-{2 * PAGE + 1:05}"}

    result = await look(stage)

    requested = [member.reference.name for batch in stage.platform.requests for member in batch.members]
    assert sorted(requested) == sorted(stage.platform.changed)
    assert {batch.purpose for batch in stage.platform.requests} == {"resync"}
    assert stage.platform.calls.count("find_changed_references") == 3
    assert (result.requested, result.refused) == (2, 0)


async def test_who_is_refused_is_counted_and_keeps_nobody_from_a_turn(stage: Stage) -> None:
    stage.platform.members = fleet(3)
    stage.platform.changed = {member.reference.name for member in stage.platform.members}
    stage.platform.refuses = lambda member: member.reference.name == "app-00001"

    result = await look(stage)

    assert (result.requested, result.refused) == (2, 1)


async def test_where_nothing_has_changed_nothing_is_requested(stage: Stage) -> None:
    stage.platform.members = fleet(3)

    result = await look(stage)

    assert stage.platform.calls == ["find_changed_references"]
    assert result == FleetResult(requested=0)


@pytest.fixture
async def client(skipping: WorkflowEnvironment) -> AsyncIterator[Client]:
    yield skipping.client
    for schedule_id in (SCHEDULE_ID, REFERENCES_SCHEDULE_ID):
        await skipping.client.get_schedule_handle(schedule_id).delete()


async def test_the_schedule_of_the_setting_is_made_beside_the_resyncs(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def restored(*_: object, **__: object) -> None: ...

    # A queue that nobody reads: what the Schedules begin meanwhile waits there.
    monkeypatch.setattr(schedule, "restore_runs", restored)
    queue = f"test-{uuid.uuid4()}"
    keeping = asyncio.create_task(
        schedule.keep_schedule(client, HALF_HOUR, references=timedelta(minutes=20), task_queue=queue)
    )
    async with asyncio.timeout(20):
        while not await is_scheduled(client):
            await asyncio.sleep(0.05)
    keeping.cancel()

    description = await client.get_schedule_handle(REFERENCES_SCHEDULE_ID).describe()

    assert [interval.every for interval in description.schedule.spec.intervals] == [timedelta(minutes=20)]


async def is_scheduled(client: Client) -> bool:
    try:
        await client.get_schedule_handle(REFERENCES_SCHEDULE_ID).describe()
    except RPCError:
        return False
    return True
