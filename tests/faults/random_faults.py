"""`make faults-long`: many applications, two workers whose backends err at random, and a kill -9 every 20 s."""

# ruff: noqa: S311  the faults are to be random, not secret

import argparse
import asyncio
import datetime as dt
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.auditing.auditor import audit
from cli.auditing.inventory import Finding
from clients.resources import APPLICATIONS
from plattr.steps import TASK_QUEUE
from stack.platform import Platform
from tests.e2e.view import View, is_settled
from tests.faults import report
from tests.faults.chaos import counted
from tests.faults.ground import ground, own_platform
from tests.faults.lanes import Lane, open_lane
from tests.faults.scenarios import SPEC

ERROR_RATE = 0.01
KILL_SECONDS = 20.0
WORKERS = 2
# The slow retry waits up to 10 min between two rounds; who needs more than three of them does not converge.
CONVERGE_SECONDS = 1800.0


@dataclass
class Tally:
    """What was done."""

    applied: int = 0
    changed: int = 0
    deleted: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    converged_seconds: float = 0
    removed_seconds: float = 0
    findings: list[str] = field(default_factory=list)


async def run(platform: Platform, folder: Path, count: int, minutes: float) -> str:
    """Return the figures; raise when it does not converge."""
    settings, environment = platform.environment("cli"), platform.environment("worker")
    tally = Tally()
    baseline = set(audit(settings).findings)
    began = time.monotonic()
    async with (
        ground(platform) as (view, _),
        open_lane(environment, folder / "0", task_queue=TASK_QUEUE, error_rate=ERROR_RATE) as first,
        open_lane(environment, folder / "1", task_queue=TASK_QUEUE, error_rate=ERROR_RATE) as second,
    ):
        names = [f"r{number}" for number in range(count)]
        killing = asyncio.create_task(_kill(platform, (first, second), tally))
        await _disturb(view, names, tally, until=began + 60 * minutes)
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        tally.converged_seconds = await _converged(view)
        tally.findings += await _found(settings, baseline)

        killing = asyncio.create_task(_kill(platform, (first, second), tally))
        tally.removed_seconds = await _removed(view)
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        tally.findings += await _found(settings, baseline)
    for finding in tally.findings:
        sys.stdout.write(f"{finding}\n")
    faults = [counted(folder / str(number)) for number in range(WORKERS)]
    return _figures(tally, count, minutes, sum(f[0] for f in faults), sum(f[1] for f in faults))


async def _disturb(view: View, names: Sequence[str], tally: Tally, *, until: float) -> None:
    """Apply everything, then change, delete and make again at random, until the time is over."""
    for name in names:
        await view.apply(name, SPEC)
        tally.applied += 1
    # As many changes as objects in the whole time, whatever both are.
    pause = max(0.2, (until - time.monotonic()) / len(names))
    while time.monotonic() < until:
        await asyncio.sleep(random.uniform(0, 2 * pause))
        name = random.choice(names)
        if await view.application(name) is None:
            await view.apply(name, SPEC)
            tally.applied += 1
        elif random.random() < 0.2:
            await view.delete(name)
            tally.deleted += 1
        else:
            number = random.randrange(1000)
            change = random.choice(
                [{"imageRef": f"registry.example/app:{number}"}, {"domain": f"{name}-{number}.example.com"}]
            )
            body = await view.application(name)
            if body is not None and "deletionTimestamp" not in body["metadata"]:
                await view.apply(name, body["spec"] | change)
                tally.changed += 1


async def _kill(platform: Platform, lanes: Sequence[Lane], tally: Tally) -> None:
    while True:
        await asyncio.sleep(KILL_SECONDS)
        victim = random.choice(("worker", "worker", "watcher"))
        if victim == "worker":
            lane = random.choice(lanes)
            lane.signal(signal.SIGKILL)
        else:
            await asyncio.to_thread(platform.kill_service, "watcher")
        tally.kills[victim] += 1


async def _converged(view: View) -> float:
    began = time.monotonic()
    async with asyncio.timeout(CONVERGE_SECONDS):
        while True:
            items = await view.kube.list(APPLICATIONS, view.namespace)
            if all(is_settled(item) and "deletionTimestamp" not in item["metadata"] for item in items):
                return time.monotonic() - began
            await asyncio.sleep(1)


async def _removed(view: View) -> float:
    began = time.monotonic()
    for item in await view.kube.list(APPLICATIONS, view.namespace):
        await view.delete(item["metadata"]["name"])
    async with asyncio.timeout(CONVERGE_SECONDS):
        while await view.kube.list(APPLICATIONS, view.namespace):
            await asyncio.sleep(1)
    return time.monotonic() - began


async def _found(settings: dict[str, str], baseline: set[Finding]) -> list[str]:
    findings = (await asyncio.to_thread(audit, settings)).findings
    return [f"{finding.problem} {finding.thing} {finding.owner}" for finding in findings if finding not in baseline]


def _figures(tally: Tally, count: int, minutes: float, errors: int, lost: int) -> str:
    rows = {
        "applications, and the time of the faults": f"{count} for {minutes:g} min",
        "applied, changed, deleted on the way": f"{tally.applied}, {tally.changed}, {tally.deleted}",
        "failed calls, lost answers": f"{errors}, {lost}",
        "kill -9 of a worker, of the watcher": f"{tally.kills['worker']}, {tally.kills['watcher']}",
        "all Running after the last change, faults going on": f"{tally.converged_seconds:.0f} s",
        "all gone after the last delete, faults going on": f"{tally.removed_seconds:.0f} s",
    }
    lines = [
        "| what | how often or how long |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return f"Findings of the auditor: {len(tally.findings)}. {report.when_and_where()}.\n\n" + "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applications", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20)
    arguments = parser.parse_args()
    with own_platform("watcher") as platform:
        folder = Path(tempfile.mkdtemp(prefix="plattr-random-"))
        sys.stdout.write(f"{dt.datetime.now(dt.UTC):%H:%M:%S} logs of the workers: {folder}\n")
        sys.stdout.flush()
        text = asyncio.run(run(platform, folder, arguments.applications, arguments.minutes))
    sys.stdout.write(f"{text}\n")
    report.write_section("random faults", text)
    return 0 if "auditor: 0." in text else 1


if __name__ == "__main__":
    sys.exit(main())
