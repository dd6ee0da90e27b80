"""The worker as a process: what its probes and its metrics say, and how it ends."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from activities.clients.temporal import connect_temporal
from plattr.steps import TASK_QUEUE, RunInput
from workflows.application import ProvisionApplication

NOBODY = "127.0.0.1:1"


@pytest.fixture
def environment(platform, temporal_server, tmp_path):
    """A Temporal of the tests' own and no backend at all: a worker acts on every object that it can see."""
    kubeconfig = tmp_path / "kubeconfig"
    context = {"name": "away", "context": {"cluster": "away", "user": "away"}}
    away = {
        "current-context": "away",
        "contexts": [context],
        "clusters": [{"name": "away", "cluster": {"server": f"http://{NOBODY}"}}],
        "users": [{"name": "away", "user": {}}],
    }
    kubeconfig.write_text(yaml.safe_dump(away))
    return {
        **platform.environment("worker"),
        **temporal_server.environment,
        "KUBECONFIG": str(kubeconfig),
        "DB_ADMIN_URL": f"postgresql://a:b@{NOBODY}/plattr",
        "KEYCLOAK_URL": f"http://{NOBODY}",
        "AWS_ENDPOINT_URL": f"http://{NOBODY}",
        "METRICS_PORT": "0",
        "METRICS_HOST": "127.0.0.1",
        "PATH": os.environ["PATH"],
    }


@contextmanager
def worker(environment):
    process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def port_of(process):
    def read():
        for line in process.stderr:
            if "health server started" in line:
                return int(re.search(r'"port": (\d+)', line).group(1))
        raise AssertionError("the worker ended before it served")

    return await asyncio.to_thread(read)


async def get(port, path):
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def until_ready(port):
    async with asyncio.timeout(30):
        while (await get(port, "/readyz"))[0] != 200:
            await asyncio.sleep(0.1)


async def until_shown(port, *samples):
    metrics = ""
    async with asyncio.timeout(30):
        while not all(re.search(sample, metrics, re.MULTILINE) for sample in samples):
            await asyncio.sleep(0.2)
            metrics = (await get(port, "/metrics"))[1]
    return metrics


async def test_with_its_backends_away_a_worker_is_ready_and_shows_what_fails(environment, temporal_server):
    with worker(environment) as process:
        port = await port_of(process)
        await until_ready(port)
        client = await connect_temporal(environment=temporal_server.environment)
        name = f"shop-{uuid.uuid4().hex[:8]}"
        run = RunInput(namespace="team", name=name, by_hand=False)
        handle = await client.start_workflow(
            ProvisionApplication.run, run, id=f"application/team/{name}", task_queue=TASK_QUEUE
        )

        metrics = await until_shown(
            port,
            r'^plattr_step_attempts_total{reason="BackendUnavailable",step="claim_object"} \d',
            r'^plattr_step_duration_seconds_count{outcome="failed",step="claim_object"} \d',
            r'^plattr_backend_errors_total{backend="kubernetes",reason="BackendUnavailable"} \d',
            r"^temporal_workflow_task_execution_latency_seconds_count{.*} \d",
            r"^process_resident_memory_bytes \d",
        )
        await handle.cancel()
        await until_shown(port, r'^temporal_workflow_canceled_total{.*workflow_type="ProvisionApplication"} 1$')

        assert list(text_string_to_metric_families(metrics))
        assert (await get(port, "/readyz"))[0] == 200
        assert await get(port, "/healthz") == (200, "ok\n")


async def test_a_worker_ends_at_sigterm(environment):
    with worker(environment) as process:
        await until_ready(await port_of(process))

        process.send_signal(signal.SIGTERM)
        _, stderr = await asyncio.to_thread(process.communicate, timeout=30)

    assert process.returncode == 0
    assert '"message": "worker stopped"' in stderr


async def test_without_temporal_a_worker_is_alive_and_not_ready(environment):
    with worker(environment | {"TEMPORAL_ADDRESS": NOBODY}) as process:
        port = await port_of(process)

        live, ready = await get(port, "/healthz"), await get(port, "/readyz")

    assert live == (200, "ok\n")
    assert ready == (503, "connecting to temporal\n")


async def test_a_temporal_namespace_that_does_not_exist_ends_the_worker_with_one_line(environment):
    with worker(environment | {"TEMPORAL_NAMESPACE": "nobodys"}) as process:
        _, stderr = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode in (1, 2)
    assert "nobodys" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
async def test_a_protocol_that_traces_cannot_take_stops_the_start(environment, name):
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: "http/protobuf"}
    with worker(environment | traced) as process:
        _, stderr = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode == 2
    assert stderr.splitlines() == [f"cannot start: setting {name}: only grpc is supported; see docs/settings.md"]
