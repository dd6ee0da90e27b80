"""A Temporal server of the test's own, that can be stopped, and a client of the platform's Kubernetes."""

import asyncio
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from activities.clients.kube import KubeClient
from activities.clients.resources import NAMESPACES
from activities.clients.temporal import (
    ENVIRONMENT_ATTRIBUTE,
    NAME_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    PHASE_ATTRIBUTE,
    connect_temporal,
)
from watcher.metrics import WatcherMetrics


class TemporalServer:
    """A dev server that keeps its file, so that stopping it loses nothing."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"TEMPORAL_ADDRESS": f"127.0.0.1:{self.port}"}

    async def start(self) -> None:
        self._spawn()
        client = await connect_temporal(environment=self.environment)
        async with asyncio.timeout(30):
            while True:
                try:
                    if await client.service_client.check_health():
                        return
                except RuntimeError:
                    await asyncio.sleep(0.1)

    def _spawn(self) -> None:
        beside_python = Path(sys.executable).parent / "temporal"
        program = str(beside_python) if beside_python.exists() else shutil.which("temporal")
        attributes = (NAMESPACE_ATTRIBUTE, NAME_ATTRIBUTE, ENVIRONMENT_ATTRIBUTE, PHASE_ATTRIBUTE)
        with (self._folder / "temporal.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port)),
                    *("--db-filename", str(self._folder / "temporal.db"), "--sqlite-pragma", "synchronous=0"),
                    *("--dynamic-config-value", "frontend.enableServerVersionCheck=false", "--log-level", "error"),
                    *(part for key in attributes for part in ("--search-attribute", f"{key.name}=Keyword")),
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@pytest.fixture(scope="session")
async def temporal_server(tmp_path_factory) -> AsyncIterator[TemporalServer]:
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    await server.start()
    yield server
    server.stop()


@pytest.fixture
def metrics() -> WatcherMetrics:
    return WatcherMetrics(CollectorRegistry())


@pytest.fixture
async def kube(platform) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    yield client
    await client.close()


@pytest.fixture
async def namespace(kube) -> AsyncIterator[str]:
    name = f"watcher-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    await kube.delete(NAMESPACES, name)
