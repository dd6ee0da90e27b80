"""Lanes: task queues of their own, each with one worker that is started again whenever it dies.

A lane works on one object at a time, so that a crash concerns that object alone; several lanes wait side by side.
"""

import asyncio
import multiprocessing
import os
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil

from stack.platform import Platform
from tests.faults.mutants import Mutant
from tests.faults.timing import Timing
from tests.faults.worker import Entry, Fault, run_worker

_CONTEXT = multiprocessing.get_context("forkserver")
# Imported once: a fork takes a tenth of a second, a new interpreter with all imports two.
_CONTEXT.set_forkserver_preload(["tests.faults.worker"])


class Lane:
    """One task queue and its worker."""

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        timing: Timing | None,
        task_queue: str = "",
        error_rate: float = 0,
        mutant: Mutant | None = None,
    ) -> None:
        self.task_queue = task_queue or f"lane-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.exits: list[int] = []
        self._environment = dict(environment)
        self._timing = timing
        self._error_rate = error_rate
        self._mutant = mutant
        self._process: ForkServerProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    def arm(self, fault: Fault) -> None:
        """Put a fault down, in one piece."""
        (self.folder / "fired.json").unlink(missing_ok=True)
        made = self.folder / "fault.new"
        made.write_text(fault.model_dump_json())
        made.rename(self.folder / "fault.json")

    def disarm(self) -> None:
        (self.folder / "fault.json").unlink(missing_ok=True)

    @property
    def has_fired(self) -> bool:
        return (self.folder / "fired.json").exists()

    async def fired(self, seconds: float = 60) -> None:
        """Return when the fault has struck."""
        async with asyncio.timeout(seconds):
            while not self.has_fired:
                await asyncio.sleep(0.02)

    async def frozen(self, seconds: float = 60) -> None:
        """Return when the worker stands still."""
        async with asyncio.timeout(seconds):
            while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.02)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def journal(self, workflow: str = "") -> list[Entry]:
        """Return what the lane's workers did, in order."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [Entry.model_validate_json(line) for line in lines]
        return [entry for entry in entries if not workflow or entry.workflow == workflow]

    async def keep(self) -> None:
        """Keep one worker running, until cancelled."""
        while True:
            self._process = _CONTEXT.Process(
                target=run_worker,
                args=(
                    self._environment,
                    self.task_queue,
                    self.folder,
                    self._timing,
                    self._error_rate,
                    self._mutant,
                ),
                daemon=True,
            )
            self._process.start()
            try:
                await _end_of(self._process)
            except asyncio.CancelledError:
                self._process.kill()
                self._process.join()
                raise
            assert self._process.exitcode is not None
            self.exits.append(self._process.exitcode)


async def _end_of(process: ForkServerProcess) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


@asynccontextmanager
async def open_lane(
    environment: Mapping[str, str],
    folder: Path,
    timing: Timing | None = None,
    task_queue: str = "",
    error_rate: float = 0,
    mutant: Mutant | None = None,
) -> AsyncIterator[Lane]:
    """Run one lane; without `timing` everything takes as long as it does for real."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of any free port: several workers run beside each other.
    lane = Lane({**environment, "METRICS_PORT": "0"}, folder, timing, task_queue, error_rate, mutant)
    keeping = asyncio.create_task(lane.keep())
    try:
        yield lane
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@asynccontextmanager
async def open_lanes(platform: Platform, folder: Path, count: int, timing: Timing | None) -> AsyncIterator[list[Lane]]:
    """Run several lanes."""
    async with AsyncExitStack() as stack:
        environment = platform.environment("worker")
        yield [
            await stack.enter_async_context(open_lane(environment, folder / f"lane-{number}", timing))
            for number in range(count)
        ]
