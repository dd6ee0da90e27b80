"""Measure what each process of the platform uses: CPU seconds between two moments, and memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import psutil

from stack.platform import Platform


class Meter:
    """CPU and memory of the platform's processes, each with its children, while the meter runs."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        self._pids = pids
        self.seconds = 0.0
        self.cpu: dict[str, float] = {}
        self.most_resident: dict[str, float] = {}
        # How many cores the processes outside this platform and the benchmark kept busy.
        self.others = 0.0

    @classmethod
    @asynccontextmanager
    async def on(cls, platform: Platform, *, more: Iterable[int] = ()) -> AsyncIterator["Meter"]:
        """Measure while the block runs; `more` are workers that the supervisor does not know."""
        pids = {status.service: [status.pid] for status in platform.status() if status.pid is not None}
        pids["worker"] = [*pids.get("worker", []), *more]
        meter = cls(pids)
        before, own, busy, begun = meter._spent(), _bench_seconds(), _busy_seconds(), time.monotonic()
        sampling = asyncio.create_task(meter._sample())
        try:
            yield meter
        finally:
            sampling.cancel()
            meter.seconds = time.monotonic() - begun
            after = meter._spent()
            meter.cpu = {service: after[service] - before[service] for service in after}
            spent = sum(meter.cpu.values()) + _bench_seconds() - own
            meter.others = max(0.0, (_busy_seconds() - busy - spent) / meter.seconds)
            meter._weigh()

    def table(self, count: int) -> str:
        """Return what each busy process used: CPU in total and per application, and its largest memory."""
        lines = [f"    {'':24}{'CPU s':>8}{'ms each':>9}{'cores':>7}{'most MB':>9}"]
        for service, spent in sorted(self.cpu.items(), key=lambda item: -item[1]):
            if spent >= 0.01 * self.seconds:
                memory = self.most_resident.get(service, 0.0)
                cores = spent / self.seconds
                lines.append(f"    {service:24}{spent:>8.1f}{spent / count * 1000:>9.0f}{cores:>7.2f}{memory:>9.0f}")
        return "\n".join([*lines, f"    {self.bound}"])

    @property
    def bound(self) -> str:
        """Say what limited the work."""
        cores, used = psutil.cpu_count() or 1, sum(self.cpu.values()) / self.seconds
        service, most = max(self.cpu.items(), key=lambda item: item[1])
        worker = self.cpu.get("worker", 0.0) / self.seconds / max(1, len(self._pids["worker"]))
        return (
            f"{used:.2f} of {cores} cores busy with the platform, {self.others:.2f} with others' work; the most by"
            f" {service} ({most / sum(self.cpu.values()):.0%}); a worker fills {worker:.0%} of the one core it can use"
        )

    async def _sample(self) -> None:
        while True:
            self._weigh()
            await asyncio.sleep(1)

    def _weigh(self) -> None:
        for service, processes in self._processes().items():
            with suppress(psutil.NoSuchProcess):
                # The largest of several workers.
                weight = max((process.memory_info().rss / 1e6 for process in processes), default=0.0)
                self.most_resident[service] = max(self.most_resident.get(service, 0.0), weight)

    def _spent(self) -> dict[str, float]:
        return {service: sum(map(_seconds, processes)) for service, processes in self._processes().items()}

    def _processes(self) -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {}
        for service, pids in self._pids.items():
            leaders = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
            found[service] = [each for leader in leaders for each in (leader, *leader.children(recursive=True))]
        return found


def _seconds(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        # The parent's figures include PostgreSQL's children that have ended meanwhile.
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _bench_seconds() -> float:
    return _seconds(psutil.Process())


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
