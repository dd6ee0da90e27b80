"""Many previews that end in one second: bounded, each exactly once, and no other object waits for them."""

import asyncio
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.common import Priority
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.interceptor import AttemptGuard
from plattr.steps import (
    ClaimInput,
    ClaimResult,
    ExpiryInput,
    Lifetime,
    PreviewLifetime,
    RunInput,
    StepResult,
)
from tests.workflows.fakes import UID, FakePlatform
from workflows.application import CleanupApplication, ProvisionApplication
from workflows.preview import CleanupPreview, PreviewLifecycle

COUNT = 150
SLOTS = 8
# What a step of a cleanup takes here: enough that the slots are full for seconds.
STEP_SECONDS = 0.02


class EndingPreviews(FakePlatform):
    """Previews that are settled and end at the same moment, and applications beside them."""

    def __init__(self, end: datetime) -> None:
        super().__init__()
        self.end = end
        self.at_once = 0
        self.most_at_once = 0
        self.deleted: Counter[str] = Counter()
        self.deleted_at: list[datetime] = []
        self.released_at: list[float] = []

    async def call(self, name: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if name.startswith("delete_"):
                await asyncio.sleep(STEP_SECONDS)
            if name == "release_object":
                self.released_at.append(time.monotonic())
        finally:
            self.at_once -= 1

    @activity.defn
    async def read_lifetime(self, request: ClaimInput) -> PreviewLifetime:
        await self.call("read_lifetime")
        if self.deleted[request.reference.name]:
            return PreviewLifetime(verdict="deleting")
        lifetime = Lifetime(uid=UID, expires_at=self.end, warn_at=self.end - timedelta(minutes=1), warning="current")
        return PreviewLifetime(verdict="alive", lifetime=lifetime)

    @activity.defn
    async def claim_object(self, request: ClaimInput) -> ClaimResult:
        await self.call("claim_object")
        return self.claim(verdict="settled") if request.reference.kind == "PreviewEnvironment" else self.claim()

    @activity.defn
    async def delete_expired(self, request: ExpiryInput) -> StepResult:
        self.deleted_at.append(datetime.now(UTC))
        await self.call("delete_expired")
        self.deleted[request.reference.name] += 1
        return StepResult()


async def started(environment: WorkflowEnvironment, queue: str, workflow: str, name: str) -> Any:
    run = RunInput(namespace="team", name=name, by_hand=False)
    # As clients/temporal.py has it.
    priority = Priority(priority_key=4 if workflow == "PreviewLifecycle" else 3)
    return await environment.client.start_workflow(
        workflow, run, id=f"{queue}/{name}", task_queue=queue, priority=priority
    )


async def test_many_ends_are_bounded_exact_and_in_nobodys_way(skipping: WorkflowEnvironment) -> None:
    queue = f"test-{uuid.uuid4()}"
    # 20 s: by then all of them sleep, also on a loaded machine.
    crowd = EndingPreviews(datetime.now(UTC) + timedelta(seconds=20))
    worker = Worker(
        skipping.client,
        task_queue=queue,
        workflows=[ProvisionApplication, CleanupApplication, PreviewLifecycle, CleanupPreview],
        activities=crowd.activities(),
        interceptors=[AttemptGuard()],
        max_concurrent_activities=SLOTS,
    )
    with skipping.with_time_skipping_disabled():
        async with worker:
            names = [f"pr-{number}" for number in range(COUNT)]
            handles = [await started(skipping, queue, "PreviewLifecycle", name) for name in names]
            while not crowd.deleted_at:
                await asyncio.sleep(0.05)
            before = len(crowd.released_at)
            application = await started(skipping, queue, "ProvisionApplication", "shop")
            await application.result()
            provisioned_at = time.monotonic()
            await asyncio.gather(*(handle.result() for handle in handles))

    assert crowd.deleted == dict.fromkeys(names, 1)
    assert min(crowd.deleted_at) >= crowd.end
    assert crowd.most_at_once <= SLOTS
    assert before < COUNT
    # Nearly all of the cleanups came after the application that was applied in their midst.
    assert len([at for at in crowd.released_at if at > provisioned_at]) > COUNT / 2
