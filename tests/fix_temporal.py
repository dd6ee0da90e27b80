"""A Temporal server of the tests' own, that can be stopped and that no worker polls."""

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clients.temporal import (
    ENVIRONMENT_ATTRIBUTE,
    NAME_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    PHASE_ATTRIBUTE,
    connect_temporal,
)


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
        program = str(beside_python) if beside_python.exists() else str(shutil.which("temporal"))
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
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    await server.start()
    yield server
    server.stop()
