"""A Temporal server that skips time, and a worker with fake activities."""

import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.interceptor import AttemptGuard
from clients.temporal import ENVIRONMENT_ATTRIBUTE, NAME_ATTRIBUTE, NAMESPACE_ATTRIBUTE, PHASE_ATTRIBUTE
from plattr.steps import RunInput
from stack.services.temporal import DYNAMIC_CONFIG
from tests.workflows.fakes import FakePlatform
from worker.registry import WORKFLOWS

# Without the first nothing skips; without the others each skip costs a second, or the skipping stops after 200.
SKIPPING = (
    "frontend.WorkflowTimeSkippingEnabled=true",
    "frontend.WorkflowTimeSkippingMaxSkipPerSession=100000",
    'history.timerProcessorMaxTimeShift="10ms"',
    # The poll limits among them; and turns between namespaces, with few runs begun at once.
    *DYNAMIC_CONFIG,
    # What priorityBacklogForwarding does would begin after 5 s by default, and no test has a queue for so long.
    'matching.backlogNegligibleAge="50ms"',
    'matching.ephemeralDataUpdateInterval="50ms"',
    # 4096 by default: a history that long takes a test half a minute.
    "limit.historyCount.suggestContinueAsNew=1000",
)


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    beside_python = Path(sys.executable).parent / "temporal"
    environment = await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=str(beside_python) if beside_python.exists() else shutil.which("temporal"),
        data_converter=pydantic_data_converter,
        search_attributes=[NAMESPACE_ATTRIBUTE, NAME_ATTRIBUTE, ENVIRONMENT_ATTRIBUTE, PHASE_ATTRIBUTE],
        dev_server_extra_args=[part for flag in SKIPPING for part in ("--dynamic-config-value", flag)],
    )
    yield environment
    await environment.shutdown()


@dataclass
class Stage:
    """One test's worker, platform and task queue."""

    environment: WorkflowEnvironment
    platform: FakePlatform
    task_queue: str

    async def start(self, workflow: str, *, signal: str | None = None, **run: Any) -> WorkflowHandle[Any, Any]:
        name = f"app-{uuid.uuid4().hex[:8]}"
        return await self.environment.client.start_workflow(
            workflow,
            RunInput.model_validate({"namespace": "team", "name": name, "by_hand": False} | run),
            id=f"{'preview' if 'Preview' in workflow else 'application'}/team/{name}",
            task_queue=self.task_queue,
            start_signal=signal,
            # 60 s of skipped time is nothing; a run that hangs must end the test instead of the job.
            run_timeout=timedelta(days=400),
        )


@pytest.fixture
async def stage(skipping: WorkflowEnvironment) -> AsyncIterator[Stage]:
    platform = FakePlatform()
    task_queue = f"test-{uuid.uuid4()}"
    async with Worker(
        skipping.client,
        task_queue=task_queue,
        workflows=WORKFLOWS,
        activities=platform.activities(),
        interceptors=[AttemptGuard()],
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    ):
        yield Stage(skipping, platform, task_queue)
