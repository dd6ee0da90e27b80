"""One, two and four workers on the same queue: how many provisions a second, and who is busy with them.

uv run python -m bench.scale_out --count 60
"""

import argparse
import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx

from bench.applications import COMMON
from bench.crowd import apply_all, remove_all
from bench.platform import BenchPlatform, keep, run_on_platform
from bench.processes import Meter
from bench.timeline import EventTimeline
from stack.platform import Platform
from stack.processes import Command, spawn
from stack.services.application import ALLOCATOR

NAMESPACE = "bench-scale-out"
WORKERS = (1, 2, 4)
START_SECONDS = 60.0
# As long as the supervisor gives a worker to stop.
STOP_SECONDS = 30.0


async def measure(ground: BenchPlatform, count: int) -> None:
    async with ground.namespace(NAMESPACE), EventTimeline.of(ground, NAMESPACE, applications_only=True) as sight:
        await run(ground, sight, 1, 5)
        results = [await run(ground, sight, workers, count) for workers in WORKERS]
    keep("scale_out", results)


async def run(ground: BenchPlatform, sight: EventTimeline, workers: int, count: int) -> dict[str, float]:
    specs = {f"out-{workers}-of-{count}-{number}": COMMON for number in range(count)}
    async with more_workers(ground.platform, workers - 1) as pids:
        async with Meter.on(ground.platform, more=pids) as meter:
            outcome = await apply_all(ground.kube, sight, NAMESPACE, specs)
        await remove_all(ground.kube, sight, NAMESPACE, list(specs))
    print(f"\nworkers {workers}: {outcome}\n{meter.table(count)}", flush=True)
    return {"workers": workers, "rate": outcome.rate, "worker_cpu": meter.cpu["worker"], "others": meter.others}


@asynccontextmanager
async def more_workers(platform: Platform, count: int) -> AsyncIterator[list[int]]:
    """Start workers beside the platform's own, as its supervisor would, and end them after the block."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        ports = [_free_port() for _ in range(count)]
        for number, port in enumerate(ports):
            environment = ALLOCATOR | platform.environment("worker") | {"METRICS_PORT": str(port)}
            command = Command(
                arguments=(sys.executable, "-m", "worker"), environment=environment, folder=platform.folders.state
            )
            processes.append(spawn(command, platform.folders.log(f"worker-{number + 2}")))
        await asyncio.gather(*(_ready(port) for port in ports))
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await asyncio.to_thread(process.wait, STOP_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _ready(port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(START_SECONDS):
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    run_on_platform(partial(measure, count=parser.parse_args().count))
