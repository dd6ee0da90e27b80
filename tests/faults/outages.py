"""`python -m tests.faults.outages`: each backend hangs for five minutes, then Temporal is gone for ten; objects change.

A stopped process takes connections and answers nothing, as a partition does; Temporal is killed.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from cli.auditing.auditor import audit
from clients.resources import APPLICATIONS
from stack.platform import Platform
from tests.e2e.view import View
from tests.faults import report
from tests.faults.ground import ground, own_platform
from tests.faults.scenarios import SPEC

HUNG = ("postgres", "s3", "keycloak", "kube-apiserver")
# A slow retry waits up to 10 min; who needs more than two of them has lost something.
CONVERGE_SECONDS = 1500.0


@asynccontextmanager
async def away(platform: Platform, service: str, seconds: float) -> AsyncIterator[None]:
    """Take a service away for some seconds from the beginning of the block, however long that takes."""
    frozen: list[psutil.Process] = []
    if service == "temporal":
        await asyncio.to_thread(platform.stop_service, service)
    else:
        [pid] = [status.pid for status in platform.status() if status.service == service and status.pid]
        # The children too: they serve the connections that PostgreSQL has, and Keycloak's first process is a shell.
        frozen = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in frozen:
            process.suspend()
    ends = time.monotonic() + seconds
    try:
        yield
        await asyncio.sleep(max(ends - time.monotonic(), 0))
    finally:
        if service == "temporal":
            await asyncio.to_thread(platform.start_service, service)
        else:
            for process in frozen:
                process.resume()


class Objects:
    """Three applications: one stays and changes, one goes, one comes, while something is away."""

    def __init__(self, view: View, label: str) -> None:
        self._view = view
        self.kept, self.gone, self.new = (f"{label}-{word}" for word in ("kept", "gone", "new"))

    async def prepare(self) -> None:
        for name in (self.kept, self.gone):
            await self._view.apply(name, SPEC)
        for name in (self.kept, self.gone):
            await self._view.wait_running(name, seconds=180)

    async def change(self) -> None:
        await self._view.apply(self.kept, SPEC | {"imageRef": "registry.example/app:2"})
        await self._view.apply(self.new, SPEC)
        await self._view.delete(self.gone)

    async def converge(self) -> float:
        began = time.monotonic()
        await self._view.wait_running(self.kept, seconds=CONVERGE_SECONDS)
        await self._view.wait_running(self.new, seconds=CONVERGE_SECONDS)
        await self._view.wait_gone(self.gone, seconds=CONVERGE_SECONDS)
        return time.monotonic() - began


async def run(platform: Platform, minutes: float, temporal_minutes: float) -> tuple[str, int]:
    """Return the table and how many findings it tells of; raise when an object does not become what it says."""
    settings = platform.environment("cli")
    baseline = set(audit(settings).findings)
    total = 0
    lines = ["| away | for, min | all as it should be after, s | findings |", "|---|---|---|---|"]
    async with ground(platform) as (view, _):
        for service in (*HUNG, "temporal"):
            took = temporal_minutes if service == "temporal" else minutes
            objects = Objects(view, service.removeprefix("kube-"))
            await objects.prepare()
            passwords = await view.secret(f"{objects.kept}-db")
            if service == "kube-apiserver":
                # Nobody can change an object meanwhile; what was under way has to end well all the same.
                await objects.change()
                async with away(platform, service, took * 60):
                    pass
            else:
                async with away(platform, service, took * 60):
                    await objects.change()
            seconds = await objects.converge()
            findings = set((await asyncio.to_thread(audit, settings)).findings) - baseline
            assert await view.secret(f"{objects.kept}-db") == passwords
            total += len(findings)
            line = f"| {service} | {took:g} | {seconds:.0f} | {len(findings)} |"
            sys.stdout.write(f"{line} {[str(finding) for finding in findings] or ''}\n")
            sys.stdout.flush()
            lines.append(line)
        for item in await view.kube.list(APPLICATIONS, view.namespace):
            await view.delete(item["metadata"]["name"])
        for item in await view.kube.list(APPLICATIONS, view.namespace):
            # A call of Keycloak's that was not answered properly is waited for: 5 min, activities/auth.py.
            await view.wait_gone(item["metadata"]["name"], seconds=CONVERGE_SECONDS)
    return "\n".join([f"{report.when_and_where()}.", "", *lines]), total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--temporal-minutes", type=float, default=10)
    arguments = parser.parse_args()
    with own_platform("worker", "watcher") as platform:
        text, findings = asyncio.run(run(platform, arguments.minutes, arguments.temporal_minutes))
    report.write_section("outages", text)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
