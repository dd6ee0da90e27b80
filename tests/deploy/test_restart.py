"""A deploy costs no attempt: real workers take turns while applications are made and changed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionError
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from clients.temporal import connect_temporal, request_reconcile
from stack.platform import ALL, Platform
from stack.registry import ON_DEMAND
from tests.deploy.helm import ROOT
from tests.e2e.view import EVERYTHING, View
from tests.worker.test_process import until_ready

APPLICATIONS_AT_ONCE = 6
# Kubernetes kills a pod 45 s after it asked it to stop; see deploy/chart.
POD_SECONDS = 45
STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED


class Pod:
    """One worker process, as a Deployment has it."""

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self.log = folder / f"worker-{uuid.uuid4().hex[:4]}.log"
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **settings}
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "worker"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    async def ready(self) -> None:
        async with asyncio.timeout(90):
            while not (port := _port(self.log)):
                await asyncio.sleep(0.1)
        try:
            await until_ready(port)
        except ClientConnectionError:
            raise AssertionError(f"the worker has ended: {self.log.read_text()}") from None

    async def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, POD_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _port(log: Path) -> int:
    started = [json.loads(line) for line in log.read_text().splitlines() if "health server started" in line]
    return int(started[0]["port"]) if started else 0


class Fleet:
    """A Temporal namespace and a cluster of its own, so that these workers see nothing but these objects."""

    def __init__(self, view: View, settings: Mapping[str, str], folder: Path) -> None:
        self.view = view
        self._settings = settings
        self._folder = folder
        self._pods: list[Pod] = []

    async def add(self) -> Pod:
        pod = Pod(self._settings, self._folder)
        self._pods.append(pod)
        await pod.ready()
        return pod

    async def apply(self, names: list[str], **changes: Any) -> None:
        for name in names:
            await self.view.apply(name, EVERYTHING | changes)
            await request_reconcile(self.view.temporal, self.view.reference(name), is_deleting=False)

    async def busy(self, names: list[str], least: int) -> None:
        """Return in a moment at which attempts are under way."""
        async with asyncio.timeout(60):
            while await self._attempts_under_way(names) < least:
                await asyncio.sleep(0.02)

    async def _attempts_under_way(self, names: list[str]) -> int:
        descriptions = await asyncio.gather(*(self.view.run_of(name).describe() for name in names))
        return sum(
            activity.state == STARTED
            for description in descriptions
            for activity in description.raw_description.pending_activities
        )

    async def attempts(self) -> list[tuple[str, int, str, str]]:
        """Return what every attempt of every run was, which one, by whom, and what ended the one before."""
        found = []
        async for execution in self.view.temporal.list_workflows(f"PlattrNamespace = '{self.view.namespace}'"):
            run = self.view.temporal.get_workflow_handle(execution.id, run_id=execution.run_id)
            events = {event.event_id: event for event in (await run.fetch_history()).events}
            for event in events.values():
                if event.HasField("activity_task_started_event_attributes"):
                    started = event.activity_task_started_event_attributes
                    scheduled = events[started.scheduled_event_id].activity_task_scheduled_event_attributes
                    name = scheduled.activity_type.name
                    found.append((name, started.attempt, started.identity, started.last_failure.message))
        return found

    async def end(self, names: list[str]) -> None:
        pod = await self.add()
        for name in names:
            await self.view.delete(name)
            await request_reconcile(self.view.temporal, self.view.reference(name), is_deleting=True)
        for name in names:
            await self.view.wait_gone(name)
        await pod.stop()
        for each in self._pods:
            each.kill()


@pytest.fixture
async def fleet(
    platform: Platform, control_plane: Platform, documented_namespace: str, tmp_path: Path
) -> AsyncIterator[Fleet]:
    # A first attempt that only has one of them started would be one that is repeated.
    platform.start(services=(*ALL, *ON_DEMAND))
    kubeconfig = str(control_plane.endpoints.kubeconfig_admin)
    # CLUSTER_ID: releases of other tests had this cluster's own id in PostgreSQL less than a minute ago.
    settings = platform.environment("worker") | {
        "CLUSTER_ID": documented_namespace,
        "KUBECONFIG": kubeconfig,
        "TEMPORAL_NAMESPACE": documented_namespace,
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
    }
    client: Client = await connect_temporal(lazy=False, environment=settings)
    kube = await KubeClient.connect(kubeconfig)
    namespace = f"restart-{uuid.uuid4().hex[:6]}"
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    yield Fleet(View(platform, kube, client, namespace), settings, tmp_path)

    await kube.delete(NAMESPACES, namespace)
    await kube.close()


async def test_a_rolling_restart_under_load_repeats_no_attempt(fleet: Fleet) -> None:
    names = [f"r{uuid.uuid4().hex[:6]}" for _ in range(APPLICATIONS_AT_ONCE)]
    old = await fleet.add()
    await fleet.apply(names)
    # As a Deployment does it: the new one is ready before the old one is asked to stop.
    await fleet.busy(names, 2)
    new = await fleet.add()
    await fleet.apply(names, imageRef="registry.example/my-app:2")
    await fleet.busy(names, 2)
    code = await old.stop()
    newest = await fleet.add()
    await fleet.apply(names, imageRef="registry.example/my-app:3")
    await fleet.busy(names, 2)
    codes = [code, await new.stop()]
    for name in names:
        await fleet.view.wait_running(name)
        await fleet.view.settle(name)
    attempts = await fleet.attempts()
    await fleet.end(names)

    assert codes == [0, 0]
    assert newest.log.exists()
    assert [attempt for attempt in attempts if attempt[1] > 1] == []
    # All three have worked, so both restarts fell into the work.
    assert len(Counter(identity for *_, identity, _ in attempts)) == 3
