import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from clients.kube import KubeClient
from clients.resources import APPLICATIONS, DEPLOYMENTS, LEASES, Json
from clients.temporal import connect_temporal
from plattr.objects import FINALIZER, Kind, ObjectReference
from plattr.target import owner_labels
from stack.platform import Platform
from tests.fix_temporal import TemporalServer
from tests.watcher.test_reconcile_queue import NO_WORKER_HERE, signals_of
from watcher.leadership import LEASE_NAME
from watcher.metrics import WatcherMetrics
from watcher.service import WatcherService


@asynccontextmanager
async def watching(
    kube: KubeClient, temporal_server: TemporalServer, metrics: WatcherMetrics
) -> AsyncIterator[tuple[WatcherService, Client]]:
    client = await connect_temporal(environment=temporal_server.environment)
    service = WatcherService(kube, client, metrics, task_queue=NO_WORKER_HERE)
    task = asyncio.create_task(service.run())
    try:
        await eventually(lambda: service.ready() is None)
        yield service, client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def eventually_signals(
    client: Client, reference: ObjectReference, expected: list[str], seconds: float = 15.0
) -> None:
    deadline = time.monotonic() + seconds
    signals = None
    while signals != expected and time.monotonic() < deadline:
        try:
            signals = await signals_of(client, reference)
        except RPCError:
            await asyncio.sleep(0.05)
    assert signals == expected


def application(name: str) -> Json:
    return {
        "apiVersion": APPLICATIONS.api_version,
        "kind": APPLICATIONS.kind,
        "metadata": {"name": name, "finalizers": [FINALIZER]},
        "spec": {"repository": "https://example.com/a.git", "framework": "docker", "environment": "staging"},
    }


async def set_phase(kube: KubeClient, name: str, namespace: str, phase: str, *, deployment_ready: str = "True") -> None:
    body = await kube.get(APPLICATIONS, name, namespace)
    assert body is not None
    condition = {
        "type": "DeploymentReady",
        "status": deployment_ready,
        "reason": "Tested",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": body["metadata"]["generation"],
    }
    generation = body["metadata"]["generation"]
    body["status"] = {"phase": phase, "observedGeneration": generation, "conditions": [condition]}
    await kube.replace_status(APPLICATIONS, body, namespace)


@pytest.fixture
async def reference(kube: KubeClient, namespace: str) -> AsyncIterator[ObjectReference]:
    reference = ObjectReference(kind=Kind.APPLICATION, namespace=namespace, name=f"w{uuid.uuid4().hex[:8]}")
    yield reference
    # There is no worker here to take our finalizer off.
    await kube.delete(APPLICATIONS, reference.name, namespace)
    remove = [{"op": "remove", "path": "/metadata/finalizers"}]
    await kube.json_patch(APPLICATIONS, reference.name, remove, namespace)


async def test_an_application_is_requested_for_its_changes_and_not_for_its_status(
    kube: KubeClient, temporal_server: TemporalServer, metrics: WatcherMetrics, reference: ObjectReference
) -> None:
    namespace, name = reference.namespace, reference.name
    async with watching(kube, temporal_server, metrics) as (service, client):
        await kube.create(APPLICATIONS, application(name), namespace)
        await eventually_signals(client, reference, ["changed"])
        await set_phase(kube, name, namespace, "Provisioning")
        await set_phase(kube, name, namespace, "Running")
        await kube.json_patch(APPLICATIONS, name, [{"op": "add", "path": "/spec/branch", "value": "next"}], namespace)
        await eventually_signals(client, reference, ["changed", "changed"])
        await kube.delete(APPLICATIONS, name, namespace)

        await eventually_signals(client, reference, ["changed", "changed", "changed"])
        assert service.live() is None


async def test_a_flip_of_its_deployment_requests_the_owner(
    kube: KubeClient, temporal_server: TemporalServer, metrics: WatcherMetrics, reference: ObjectReference
) -> None:
    namespace, name = reference.namespace, reference.name
    labels = owner_labels(reference)
    pod: Json = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "image": "registry.test/app:1"}]},
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": pod,
        },
    }
    async with watching(kube, temporal_server, metrics) as (service, client):
        await kube.create(APPLICATIONS, application(name), namespace)
        await kube.create(DEPLOYMENTS, body, namespace)
        await eventually_signals(client, reference, ["changed"])
        await eventually(lambda: service.tracker.deployments.is_available(reference))
        await set_phase(kube, name, namespace, "Running")

        pod["metadata"]["annotations"] = {"sim/outcome": "crashloop"}
        await kube.apply(DEPLOYMENTS, body, namespace)
        await eventually_signals(client, reference, ["changed", "repair"], 30)
        await set_phase(kube, name, namespace, "Failed", deployment_ready="False")
        pod["metadata"]["annotations"] = {"sim/outcome": "ready"}
        await kube.apply(DEPLOYMENTS, body, namespace)

        await eventually_signals(client, reference, ["changed", "repair", "repair"], 30)


async def test_a_restarted_watcher_requests_what_is_not_settled(
    kube: KubeClient, temporal_server: TemporalServer, metrics: WatcherMetrics, reference: ObjectReference
) -> None:
    await kube.create(APPLICATIONS, application(reference.name), reference.namespace)

    async with watching(kube, temporal_server, metrics) as (_, client):
        await eventually_signals(client, reference, ["changed"])


async def test_probes_tell_the_truth_while_temporal_is_away(
    kube: KubeClient, metrics: WatcherMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect_temporal(environment={"TEMPORAL_ADDRESS": "127.0.0.1:1"})
    service = WatcherService(kube, client, metrics)
    task = asyncio.create_task(service.run())

    await eventually(lambda: all(stream.is_synced for stream in service.streams))

    assert service.live() is None
    assert "temporal" in (service.ready() or "")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_loop_that_stands_still_is_not_alive(
    kube: KubeClient, temporal_server: TemporalServer, metrics: WatcherMetrics
) -> None:
    client = await connect_temporal(environment=temporal_server.environment)
    service = WatcherService(kube, client, metrics)

    service.streams[1].alive_at -= 121

    assert "previewenvironments" in (service.live() or "")


def run_watcher(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "watcher"],
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_bad_setting_stops_the_start_with_one_line() -> None:
    process = run_watcher({"METRICS_PORT": "many"})

    _, stderr = process.communicate(timeout=30)

    assert process.returncode == 2
    assert stderr.count("\n") == 1
    assert "METRICS_PORT" in stderr


async def test_the_process_leads_answers_probes_and_hands_over_at_sigterm(
    platform: Platform, kube: KubeClient, temporal_server: TemporalServer
) -> None:
    settings = platform.environment("watcher") | temporal_server.environment
    settings |= {"LEADER_ELECTION": "true", "METRICS_PORT": "0", "METRICS_HOST": "127.0.0.1"}
    process = run_watcher(settings)
    try:
        port = await asyncio.to_thread(_port_of, process)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with asyncio.timeout(30):
                while (await _get(http, "/readyz"))[0] != 200 or "is_leader 1" not in (await _get(http, "/metrics"))[1]:
                    await asyncio.sleep(0.1)
            assert (await _get(http, "/healthz"))[0] == 200
            assert "plattr_watcher_relists_total" in (await _get(http, "/metrics"))[1]
        held = await kube.get(LEASES, LEASE_NAME, settings["LEASE_NAMESPACE"])
        process.send_signal(signal.SIGTERM)
        _, stderr = await asyncio.to_thread(process.communicate, timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 0
    assert '"message": "watcher stopped"' in stderr
    assert held is not None
    assert held["spec"]["holderIdentity"]
    released = await kube.get(LEASES, LEASE_NAME, settings["LEASE_NAMESPACE"])
    assert released is not None
    assert released["spec"]["holderIdentity"] == ""


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if "health server started" in line:
            return int(line.split('"port": ')[1].split("}")[0].split(",")[0])
    raise AssertionError("the watcher ended before it served")


async def _get(http: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with http.get(path) as response:
        return response.status, await response.text()
