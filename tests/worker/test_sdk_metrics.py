"""Temporal's own metrics have the names that the alerts and the dashboard ask for."""

import asyncio
import re
import socket
import uuid
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from clients.temporal import connect_temporal
from plattr.errors import MissingSetting
from telemetry import sdk_metrics
from telemetry.sdk_metrics import SdkMetrics
from tests.deploy.test_chart import SDK_METRICS
from tests.fix_temporal import TemporalServer


@activity.defn
async def answer() -> str:
    return "done"


@workflow.defn
class Run:
    @workflow.run
    async def run(self, end: str) -> str:
        if end == "start again":
            workflow.continue_as_new("complete")
        if end == "fail":
            raise ApplicationError("refused", non_retryable=True)
        if end == "stand still":
            raise KeyError("a defect")
        return await workflow.execute_activity(answer, start_to_close_timeout=timedelta(seconds=5))


async def test_every_metric_that_alerts_and_dashboard_ask_for_is_served(temporal_server: TemporalServer) -> None:
    metrics, queue = SdkMetrics(), f"metrics-{uuid.uuid4().hex[:8]}"
    client = await connect_temporal(lazy=False, environment=temporal_server.environment, runtime=metrics.runtime)
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=queue, workflows=[Run], activities=[answer], workflow_runner=runner):
        await client.execute_workflow(Run.run, "start again", id=f"{queue}-again", task_queue=queue)
        with pytest.raises(WorkflowFailureError):
            await client.execute_workflow(Run.run, "fail", id=f"{queue}-fail", task_queue=queue)
        stuck = await client.start_workflow(Run.run, "stand still", id=f"{queue}-stuck", task_queue=queue)
        async with asyncio.timeout(20):
            while "temporal_workflow_task_execution_failed_total" not in (text := (await metrics.read()).decode()):
                await asyncio.sleep(0.1)
        await stuck.terminate()

    assert set(re.findall(r"^(temporal_\w+)[{ ]", text, re.MULTILINE)) >= SDK_METRICS
    assert 'workflow_type="Run"' in text
    failed = re.findall(r"^temporal_workflow_task_execution_failed_total{(.*)} ", text, re.MULTILINE)
    # What the alert and the dashboard tell the defects apart by.
    assert [dict(re.findall(r'(\w+)="([^"]*)"', labels)).get("failure_reason") for labels in failed] == [
        "WorkflowError"
    ]
    assert "service_name" not in text


async def test_a_loopback_without_a_free_port_stops_the_start_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(sdk_metrics, "_free_port", lambda: taken.getsockname()[1])

        with pytest.raises(MissingSetting, match="no free port"):
            SdkMetrics()
