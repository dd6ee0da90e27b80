"""Many previews that end in the same second: how long the deletions and the cleanups take, and who has to wait.

`uv run python -m bench.expiry --count 10000`. Temporal, the worker and the workflows are real; the activities only wait
for as long as `--step` says, so the figures are what Plattr and Temporal add to the backends' own work.
"""

import argparse
import asyncio
import sys
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import Priority
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities.interceptor import AttemptGuard
from clients.temporal import ENVIRONMENT_ATTRIBUTE, NAME_ATTRIBUTE, NAMESPACE_ATTRIBUTE, PHASE_ATTRIBUTE
from plattr.settings import Settings
from plattr.steps import ClaimInput, ClaimResult, ExpiryInput, Lifetime, PreviewLifetime, RunInput, StepResult
from stack.services.temporal import DYNAMIC_CONFIG
from tests.workflows.fakes import UID, FakePlatform
from worker.__main__ import CACHED_RUNS, build_tuner
from worker.run_limiter import InFlightRuns, RunCounter
from workflows.application import CleanupApplication, ProvisionApplication
from workflows.preview import CleanupPreview, PreviewLifecycle

RUNS_AT_ONCE: int = Settings.model_fields["runs_at_once"].default
# So many starts at once. More would only queue in the server.
STARTERS = 50


class EndingPreviews(FakePlatform):
    """Settled previews that all end at the same time, and one application among them."""

    def __init__(self, step_seconds: float) -> None:
        super().__init__()
        self.end = datetime.now(UTC) + timedelta(days=1)
        self.step_seconds = step_seconds
        self.resting = 0
        self.at_once = 0
        self.most_at_once = 0
        self.deleted: Counter[str] = Counter()
        self.deleted_at: list[float] = []
        self.released_at: list[float] = []

    async def call(self, name: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if name.startswith(("delete_", "reconcile_")):
            await asyncio.sleep(self.step_seconds)
        if name == "release_object":
            self.released_at.append(time.time())
        self.at_once -= 1

    @activity.defn
    async def read_lifetime(self, request: ClaimInput) -> PreviewLifetime:
        await self.call("read_lifetime")
        if self.deleted[request.reference.name]:
            return PreviewLifetime(verdict="deleting")
        lifetime = Lifetime(uid=UID, expires_at=self.end, warn_at=self.end, warning="none")
        return PreviewLifetime(verdict="alive", lifetime=lifetime)

    @activity.defn
    async def claim_object(self, request: ClaimInput) -> ClaimResult:
        await self.call("claim_object")
        if request.reference.kind == "Application":
            return self.claim()
        self.resting += 1
        return self.claim(verdict="settled")

    @activity.defn
    async def delete_expired(self, request: ExpiryInput) -> StepResult:
        await self.call("delete_expired")
        self.deleted_at.append(time.time())
        self.deleted[request.reference.name] += 1
        return StepResult()


async def start(client: Client, queue: str, workflow: str, name: str) -> WorkflowHandle[object, object]:
    run = RunInput(namespace="team", name=name, by_hand=False)
    # As in clients/temporal.py.
    priority = Priority(priority_key=4 if workflow == "PreviewLifecycle" else 3)
    return await client.start_workflow(workflow, run, id=f"{queue}/{name}", task_queue=queue, priority=priority)


async def start_all(client: Client, queue: str, names: list[str]) -> None:
    waiting = iter(names)

    async def starter() -> None:
        for name in waiting:
            await start(client, queue, "PreviewLifecycle", name)

    await asyncio.gather(*(starter() for _ in range(STARTERS)))


async def measure(count: int, seconds_ahead: float, step_seconds: float) -> None:
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        dev_server_log_level="error",
        data_converter=pydantic_data_converter,
        search_attributes=[NAMESPACE_ATTRIBUTE, NAME_ATTRIBUTE, ENVIRONMENT_ATTRIBUTE, PHASE_ATTRIBUTE],
        dev_server_extra_args=[part for flag in DYNAMIC_CONFIG for part in ("--dynamic-config-value", flag)],
    )
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    crowd = EndingPreviews(step_seconds)
    crowd.end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds_ahead)
    in_flight = InFlightRuns(RUNS_AT_ONCE)
    worker = Worker(
        environment.client,
        task_queue=queue,
        workflows=[ProvisionApplication, CleanupApplication, PreviewLifecycle, CleanupPreview],
        activities=crowd.activities(),
        interceptors=[AttemptGuard(), RunCounter(in_flight)],
        tuner=build_tuner(in_flight),
        max_cached_workflows=CACHED_RUNS,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    async with worker:
        names = [f"pr-{number}" for number in range(count)]
        await start_all(environment.client, queue, names)
        while crowd.resting < count:
            if time.time() > crowd.end.timestamp():
                raise SystemExit("cannot measure: the end came before all of them slept; give --ahead more seconds")
            await asyncio.sleep(0.5)
        print(f"{count} previews sleep {crowd.end.timestamp() - time.time():.0f} s before their end")
        provisions: list[float] = []
        while len(crowd.released_at) < count:
            await asyncio.sleep(1)
            if time.time() > crowd.end.timestamp() and len(provisions) < 20:
                begun = time.perf_counter()
                application = await start(environment.client, queue, "ProvisionApplication", f"app-{len(provisions)}")
                await application.result()
                provisions.append(time.perf_counter() - begun)
    await environment.shutdown()
    end = crowd.end.timestamp()
    print(f"each deleted once: {crowd.deleted == dict.fromkeys(names, 1)}; at most {crowd.most_at_once} at once")
    print(f"first deletion {min(crowd.deleted_at) - end:.2f} s, last {max(crowd.deleted_at) - end:.1f} s after the end")
    print(f"last cleanup {max(crowd.released_at) - end:.1f} s after the end")
    print(f"an application applied meanwhile: {max(provisions):.1f} s at most, of {len(provisions)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--ahead", type=float, default=120, help="seconds until the end")
    parser.add_argument("--step", type=float, default=0.02, help="seconds that each backend's step takes")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.count, arguments.ahead, arguments.step))


if __name__ == "__main__":
    main()
