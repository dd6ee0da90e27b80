"""Thousands of changes of one object: the history stays short, and the last change is acted on."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

from plattr.steps import CHANGED_SIGNAL, ClaimResult, RunInput
from tests.workflows.conftest import Stage

# The server of the tests suggests a new history after 1,000 events (conftest.SKIPPING), others after 4,096; all refuse
# the 10,001st signal of one run.
SUGGESTED = 1000
# What comes in during the attempt in flight comes on top.
LONGEST = 2 * SUGGESTED
SENDERS = 20


async def flood(stage: Stage, workflow: str, count: int) -> str:
    """Send the changes as the watcher does, by signal-with-start; return the workflow's id."""
    name = f"app-{uuid.uuid4().hex[:8]}"
    run = RunInput(namespace="team", name=name, by_hand=False)

    async def send(number: int) -> None:
        for _ in range(number, count, SENDERS):
            await stage.environment.client.start_workflow(
                workflow,
                run,
                id=f"application/team/{name}",
                task_queue=stage.task_queue,
                start_signal=CHANGED_SIGNAL,
                run_timeout=timedelta(days=400),
            )

    await asyncio.gather(*(send(number) for number in range(SENDERS)))
    return f"application/team/{name}"


async def histories(stage: Stage, workflow_id: str, count: int) -> list[list[Any]]:
    """Return the events of every run of the id, as soon as they hold all the signals and all are closed."""
    client = stage.environment.client
    async with asyncio.timeout(60):
        while True:
            runs = [run async for run in client.list_workflows(f"WorkflowId = {workflow_id!r}")]
            found = [
                list((await client.get_workflow_handle(workflow_id, run_id=run.run_id).fetch_history()).events)
                for run in runs
            ]
            if sum(map(signals_in, found)) == count and all(run.close_time for run in runs):
                return found
            await asyncio.sleep(0.2)


def signals_in(events: list[Any]) -> int:
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED for event in events)


@pytest.mark.parametrize("count", [1500, pytest.param(12_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("workflow", "first", "last"),
    [
        ("ProvisionApplication", "claim_object", "write_status"),
        ("CleanupApplication", "plan_cleanup", "release_object"),
    ],
    ids=["provision", "cleanup"],
)
async def test_a_flood_of_changes_keeps_histories_short(
    stage: Stage, workflow: str, first: str, last: str, count: int
) -> None:
    workflow_id = await flood(stage, workflow, count)
    await stage.environment.client.get_workflow_handle(workflow_id).result()

    runs = await histories(stage, workflow_id, count)

    assert len(runs) > 1
    assert max(map(len, runs)) < LONGEST
    assert stage.platform.calls[-1] == last
    assert stage.platform.calls.count(first) < count
    assert stage.platform.overlaps == []


async def test_a_flood_for_an_object_that_is_settled_keeps_histories_short(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.platform, "claim", lambda: ClaimResult(verdict="settled"))

    workflow_id = await flood(stage, "ProvisionApplication", 1500)

    found = await histories(stage, workflow_id, 1500)
    assert max(map(len, found)) < LONGEST
