"""The benchmarks' own platform, their shared functions, and how they print and keep figures."""

import asyncio
import json
import platform as machine
import shutil
import statistics
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from clients.kube import KubeClient
from clients.resources import NAMESPACES
from stack.folders import default_state
from stack.platform import Platform

# 15 min: a longer time is a fault and not a figure. The longest wait is for the last of 1,000 applications.
LONGEST_SECONDS = 900.0


@dataclass(frozen=True)
class BenchPlatform:
    """A running platform, and the admin's client for its cluster."""

    platform: Platform
    kube: KubeClient
    # Whether the platform was started for this benchmark. If so, it is stopped with everything that is left on it.
    is_own: bool

    @property
    def kubeconfig(self) -> str:
        """Return the admin's kubeconfig, for further clients of a benchmark."""
        return str(self.platform.endpoints.kubeconfig_admin)

    @asynccontextmanager
    async def namespace(self, name: str) -> AsyncIterator[str]:
        """Create a namespace. On a platform that stays, delete the namespace again and wait until it is gone."""
        await self.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            yield name
        finally:
            if not self.is_own:
                await self.kube.delete(NAMESPACES, name)
                async with asyncio.timeout(LONGEST_SECONDS):
                    while await self.kube.get(NAMESPACES, name):
                        await asyncio.sleep(0.5)


def run_on_platform(work: Callable[[BenchPlatform], Coroutine[Any, Any, None]]) -> None:
    """Run a benchmark on the benchmarks' platform. A platform that already runs stays; a new one starts empty."""
    platform = Platform(default_state().parent / "bench")
    was_running = platform.is_running
    if not was_running:
        shutil.rmtree(platform.folders.state, ignore_errors=True)
    platform.start(apps=("worker", "watcher"))
    try:
        asyncio.run(_run(work, platform, is_own=not was_running))
    finally:
        if not was_running:
            platform.stop()


async def _run(work: Callable[[BenchPlatform], Coroutine[Any, Any, None]], platform: Platform, *, is_own: bool) -> None:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    try:
        print(f"{place()}; load {psutil.getloadavg()[0]:.1f} at the start")
        await work(BenchPlatform(platform, kube, is_own))
    finally:
        await kube.close()


def place() -> str:
    """Return the first line of every result: date and machine."""
    memory = psutil.virtual_memory().total / 2**30
    where = f"{machine.system()} {machine.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB"
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {where}"


def percentile(values: Sequence[float], hundredth: int) -> float:
    """Return a percentile, interpolated between the two nearest values."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[hundredth - 1]


def keep(bench: str, results: Any) -> None:
    """Keep results beside the platforms' state, for bench/plot.py."""
    folder = results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{bench}.json").write_text(json.dumps({"place": place(), "results": results}, indent=2))


def results_folder() -> Path:
    """Return the folder in which `keep` stores the results."""
    return default_state().parent / "bench-results"
