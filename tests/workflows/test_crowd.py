"""A crowd of runs in one namespace: few are under way at once, all get done, and another namespace's comes in turn."""

import asyncio
import itertools
import uuid
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import Priority
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.interceptor import AttemptGuard
from plattr.steps import ClaimResult, RunInput
from tests.workflows.fakes import FakePlatform
from worker.__main__ import build_tuner
from worker.run_limiter import InFlightRuns, RunCounter
from workflows.application import ProvisionApplication

COUNT = 40
MOST = 3
# Between the turn that begins a run and its first step, which is when it is counted, one more may be let in.
SLACK = 2
STEP_SECONDS = 0.01


class Watched(FakePlatform):
    """Knows which runs have begun and have not written their status yet."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: set[str] = set()
        self.most = 0
        self.done: list[str] = []

    async def call(self, name: str) -> None:
        info = activity.info()
        run = str(info.workflow_id)
        if name == "claim_object":
            self.begun.add(run)
            self.most = max(self.most, len(self.begun))
        await asyncio.sleep(STEP_SECONDS)
        if name == "write_status":
            self.begun.remove(run)
            self.done.append(run)


async def started(environment: WorkflowEnvironment, queue: str, namespace: str, name: str) -> Any:
    return await environment.client.start_workflow(
        ProvisionApplication.run,
        RunInput(namespace=namespace, name=name, by_hand=False),
        id=f"{queue}/{namespace}/{name}",
        task_queue=queue,
        priority=Priority(fairness_key=namespace),
    )


async def test_few_runs_are_under_way_and_a_newcomer_comes_in_turn(skipping: WorkflowEnvironment) -> None:
    queue, platform, under_way = f"test-{uuid.uuid4()}", Watched(), InFlightRuns(MOST)
    worker = Worker(
        skipping.client,
        task_queue=queue,
        workflows=[ProvisionApplication],
        activities=platform.activities(),
        interceptors=[AttemptGuard(), RunCounter(under_way)],
        tuner=build_tuner(under_way),
    )
    with skipping.with_time_skipping_disabled():
        crowd = [await started(skipping, queue, "crowd", f"app-{number}") for number in range(COUNT)]
        newcomer = await started(skipping, queue, "other", "single")
        async with worker:
            await newcomer.result()
            before = len(platform.done)
            await asyncio.gather(*(run.result() for run in crowd))

    assert len(platform.done) == COUNT + 1
    assert platform.most <= MOST + SLACK
    # It was the last to be started, and is among the first to be done.
    assert before < COUNT / 2


class Churning(FakePlatform):
    """Each look at an object finds a newer generation, so a round that is preempted begins with its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.generations = itertools.count(1)

    def claim(self, **update: Any) -> ClaimResult:
        return super().claim(generation=next(self.generations), **update)

    async def call(self, name: str) -> None:
        await asyncio.sleep(STEP_SECONDS)


@pytest.mark.attack
async def test_a_namespace_whose_objects_change_all_the_time_keeps_no_newcomer_waiting(
    skipping: WorkflowEnvironment,
) -> None:
    queue, under_way = f"test-{uuid.uuid4()}", InFlightRuns(MOST)
    worker = Worker(
        skipping.client,
        task_queue=queue,
        workflows=[ProvisionApplication],
        activities=Churning().activities(),
        interceptors=[AttemptGuard(), RunCounter(under_way)],
        tuner=build_tuner(under_way),
    )
    with skipping.with_time_skipping_disabled():
        churning = [await started(skipping, queue, "churn", f"app-{number}") for number in range(MOST)]

        async def churn() -> None:
            while True:
                await asyncio.gather(*(run.signal("changed") for run in churning))
                await asyncio.sleep(2 * STEP_SECONDS)

        async with worker:
            changes = asyncio.create_task(churn())
            # None of them gets through, and each has begun again.
            await asyncio.sleep(1)
            newcomer = await started(skipping, queue, "other", "single")
            async with asyncio.timeout(20):
                await newcomer.result()
            statuses = [(await run.describe()).status for run in churning]
            changes.cancel()
            await asyncio.gather(changes, return_exceptions=True)
            await asyncio.gather(*(run.result() for run in churning))

    assert statuses == [WorkflowExecutionStatus.RUNNING] * MOST
