"""The worker as a process: what its probes and its metrics say, and how it ends."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import psycopg
import pytest
import yaml
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from clients.installation import LEASE_NAME
from clients.kube import KubeClient
from clients.resources import NAMESPACES, Json
from clients.temporal import connect_temporal
from plattr.steps import TASK_QUEUE, RunInput
from stack.platform import Platform
from tests.fix_temporal import TemporalServer
from workflows.application import ProvisionApplication

NOBODY = "127.0.0.1:1"


@pytest.fixture
def cluster_id(platform: Platform) -> Iterator[str]:
    """A cluster of the test's own; its row goes with it."""
    name = f"process-{uuid.uuid4().hex[:8]}"
    yield name
    with psycopg.connect(platform.endpoints.database_superuser_url, autocommit=True) as connection:
        if connection.execute("SELECT to_regclass('plattr_private.installations')").fetchone() != (None,):
            connection.execute("DELETE FROM plattr_private.installations WHERE cluster = %s", [name])


def leading_to(server: str, folder: Path) -> str:
    """Return a kubeconfig that leads to an API server."""
    kubeconfig = folder / f"kubeconfig-{uuid.uuid4().hex[:4]}"
    document = {
        "current-context": "away",
        "contexts": [{"name": "away", "context": {"cluster": "away", "user": "away"}}],
        "clusters": [{"name": "away", "cluster": {"server": f"http://{server}"}}],
        "users": [{"name": "away", "user": {}}],
    }
    kubeconfig.write_text(yaml.safe_dump(document))
    return str(kubeconfig)


@pytest.fixture
async def installation_server() -> AsyncIterator[str]:
    """An API server that knows nothing but the installation's Lease; everything else is away."""
    leases: Json = {}

    async def answer(request: web.Request) -> web.Response:
        is_made = request.method == "POST" and request.path.endswith("/leases")
        if not (is_made or request.path.endswith(f"/leases/{LEASE_NAME}")):
            return web.json_response({"kind": "Status", "reason": "ServiceUnavailable"}, status=503)
        if is_made:
            leases["one"] = await request.json()
        elif request.method == "PATCH":
            for operation in await request.json():
                name = operation["path"].rpartition("/")[2].replace("~1", "/")
                leases["one"]["metadata"]["annotations"][name] = operation["value"]
        elif not leases:
            return web.json_response({"kind": "Status", "reason": "NotFound"}, status=404)
        return web.json_response(leases["one"])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield "{}:{}".format(*runner.addresses[0])
    await runner.cleanup()


@pytest.fixture
def environment(
    platform: Platform, temporal_server: TemporalServer, installation_server: str, cluster_id: str, tmp_path: Path
) -> dict[str, str]:
    """A Temporal of the tests' own and hardly a backend: a worker acts on every object that it can see.

    What it needs to know that its cluster's id is its own is there.
    """
    return {
        **platform.environment("worker"),
        **temporal_server.environment,
        "KUBECONFIG": leading_to(installation_server, tmp_path),
        "CLUSTER_ID": cluster_id,
        "KEYCLOAK_URL": f"http://{NOBODY}",
        "AWS_ENDPOINT_URL": f"http://{NOBODY}",
        "METRICS_PORT": "0",
        "METRICS_HOST": "127.0.0.1",
        "PATH": os.environ["PATH"],
    }


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def port_of(process: subprocess.Popen[str]) -> int:
    def read() -> int:
        assert process.stderr is not None
        for line in process.stderr:
            if "health server started" in line:
                [port] = re.findall(r'"port": (\d+)', line)
                return int(port)
        raise AssertionError("the worker ended before it served")

    return await asyncio.to_thread(read)


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def until_ready(port: int) -> None:
    async with asyncio.timeout(30):
        while (await get(port, "/readyz"))[0] != 200:
            await asyncio.sleep(0.1)


async def until_shown(port: int, *samples: str) -> str:
    metrics = ""
    async with asyncio.timeout(30):
        while not all(re.search(sample, metrics, re.MULTILINE) for sample in samples):
            await asyncio.sleep(0.2)
            metrics = (await get(port, "/metrics"))[1]
    return metrics


async def test_with_its_backends_away_a_worker_is_ready_and_shows_what_fails(
    environment: dict[str, str], temporal_server: TemporalServer
) -> None:
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


async def test_a_worker_ends_at_sigterm(environment: dict[str, str]) -> None:
    with worker(environment) as process:
        await until_ready(await port_of(process))

        process.send_signal(signal.SIGTERM)
        _, stderr = await asyncio.to_thread(process.communicate, timeout=30)

    assert process.returncode == 0
    assert '"message": "worker stopped"' in stderr


async def test_without_temporal_a_worker_is_alive_and_not_ready(environment: dict[str, str]) -> None:
    with worker(environment | {"TEMPORAL_ADDRESS": NOBODY}) as process:
        port = await port_of(process)

        live, ready = await get(port, "/healthz"), await get(port, "/readyz")

    assert live == (200, "ok\n")
    assert ready == (503, "connecting to temporal\n")


@pytest.mark.parametrize("away", ["kubernetes", "postgresql"])
async def test_without_a_proof_that_its_cluster_is_its_own_a_worker_takes_no_work(
    environment: dict[str, str], tmp_path: Path, away: str
) -> None:
    changes = {
        "kubernetes": {"KUBECONFIG": leading_to(NOBODY, tmp_path)},
        "postgresql": {"DB_ADMIN_URL": f"postgresql://a:b@{NOBODY}/plattr"},
    }
    with worker(environment | changes[away]) as process:
        port = await port_of(process)
        async with asyncio.timeout(30):
            while (answer := await get(port, "/readyz")) == (503, "connecting to temporal\n"):
                await asyncio.sleep(0.1)

        live = await get(port, "/healthz")

    assert live == (200, "ok\n")
    assert answer == (503, "connecting to kubernetes and postgresql\n")


@pytest.mark.attack
async def test_a_copy_of_a_living_installation_ends_with_one_line(
    environment: dict[str, str], platform: Platform, cluster_id: str, tmp_path: Path
) -> None:
    with worker(environment) as original:
        await until_ready(await port_of(original))
        # In a cluster that was restored from a backup: the same id, and a Lease of the past.
        async with new_namespace(platform) as namespace:
            copied = {"KUBECONFIG": str(platform.endpoints.kubeconfig_admin), "LEASE_NAMESPACE": namespace}
            with worker(environment | copied) as copy:
                _, stderr = await asyncio.to_thread(copy.communicate, timeout=60)
        original_lives = original.poll() is None

    assert copy.returncode == 2
    assert cluster_id in stderr.splitlines()[-1]
    assert "another installation" in stderr.splitlines()[-1]
    assert original_lives


@asynccontextmanager
async def new_namespace(platform: Platform) -> AsyncIterator[str]:
    """Yield a namespace of a real API server."""
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    name = f"installation-{uuid.uuid4().hex[:6]}"
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        await kube.delete(NAMESPACES, name)
        await kube.close()


async def test_a_temporal_namespace_that_does_not_exist_ends_the_worker_with_one_line(
    environment: dict[str, str],
) -> None:
    with worker(environment | {"TEMPORAL_NAMESPACE": "nobodys"}) as process:
        _, stderr = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode in (1, 2)
    assert "nobodys" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
async def test_a_protocol_that_traces_cannot_take_stops_the_start(environment: dict[str, str], name: str) -> None:
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: "http/protobuf"}
    with worker(environment | traced) as process:
        _, stderr = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode == 2
    assert stderr.splitlines() == [f"cannot start: setting {name}: only grpc is supported; see docs/settings.md"]
