"""What docs/decisions/0014-unversioned-workers.md says of old and new workers, on a real Temporal."""

import asyncio
import secrets
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from clients.temporal import connect_temporal
from stack.platform import Platform

STEP_TIMEOUT = timedelta(seconds=20)


@activity.defn
async def step(name: str) -> str:
    """Take a moment; say in which attempt it was done."""
    await asyncio.sleep(0.2)
    return f"{name}#{activity.info().attempt}"


async def _do(name: str) -> str:
    retries = RetryPolicy(initial_interval=timedelta(milliseconds=100))
    return await workflow.execute_activity(step, name, start_to_close_timeout=STEP_TIMEOUT, retry_policy=retries)


@workflow.defn(name="Provision")
class OldProvision:
    """The sequence of the release before."""

    def __init__(self) -> None:
        self._goes_on = False

    @workflow.run
    async def run(self) -> list[str]:
        done = [await _do("database")]
        await workflow.wait_condition(lambda: self._goes_on)
        return [*done, await _do("workload")]

    @workflow.signal
    def go_on(self) -> None:
        self._goes_on = True


@workflow.defn(name="Provision")
class NewProvision:
    """The same with one more step, behind a patch."""

    def __init__(self) -> None:
        self._goes_on = False

    @workflow.run
    async def run(self) -> list[str]:
        done = [await _do("database")]
        if workflow.patched("queue-step"):
            done.append(await _do("queue"))
        await workflow.wait_condition(lambda: self._goes_on)
        return [*done, await _do("workload")]

    @workflow.signal
    def go_on(self) -> None:
        self._goes_on = True


@pytest.fixture
async def client(platform: Platform) -> Client:
    environment = {"TEMPORAL_ADDRESS": platform.endpoints.temporal_address}
    return await connect_temporal(lazy=False, environment=environment)


@pytest.fixture
def queue() -> str:
    return f"rollout-{secrets.token_hex(4)}"


def worker(client: Client, queue: str, release: type) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[release],
        activities=[step],
        graceful_shutdown_timeout=timedelta(seconds=10),
        # Not what is tested, and both classes lie in one module.
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


async def begin(client: Client, queue: str) -> WorkflowHandle[object, list[str]]:
    return await client.start_workflow(
        "Provision",
        id=f"{queue}-{secrets.token_hex(3)}",
        task_queue=queue,
        result_type=list[str],
        # A worker reports a task's first failure only; the next ones are left to this timeout.
        task_timeout=timedelta(seconds=2),
    )


async def count(handle: WorkflowHandle[object, list[str]], *kinds: EventType.ValueType) -> int:
    return len([event for event in (await handle.fetch_history()).events if event.event_type in kinds])


async def until(handle: WorkflowHandle[object, list[str]], kind: EventType.ValueType, times: int) -> None:
    async with asyncio.timeout(15):
        while await count(handle, kind) < times:
            await asyncio.sleep(0.1)


async def test_a_run_of_the_old_worker_ends_in_the_old_sequence_on_the_new(client: Client, queue: str) -> None:
    async with worker(client, queue, OldProvision):
        handle = await begin(client, queue)
        await until(handle, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, 1)

    async with worker(client, queue, NewProvision):
        await handle.signal("go_on")
        done = await asyncio.wait_for(handle.result(), 20)

    assert done == ["database#1", "workload#1"]
    assert await count(handle, EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED) == 0


async def test_a_run_past_the_patch_waits_for_the_new_worker_and_does_not_fail(client: Client, queue: str) -> None:
    async with worker(client, queue, NewProvision):
        handle = await begin(client, queue)
        await until(handle, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, 2)

    async with worker(client, queue, OldProvision):
        await handle.signal("go_on")
        await until(handle, EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED, 1)
    async with worker(client, queue, NewProvision):
        done = await asyncio.wait_for(handle.result(), 30)

    assert done == ["database#1", "queue#1", "workload#1"]
