"""One namespace applies hundreds; how long another's single application takes, against the same on an idle platform.

uv run python -m bench.fairness --count 500
uv run python -m bench.fairness --churn 8    one namespace changes 8 objects twice a second, for as long as it lasts
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from functools import partial

from bench.applications import COMMON, manifest
from bench.platform import LONGEST_SECONDS, BenchPlatform, keep, run_on_platform
from bench.timeline import EventTimeline
from clients.resources import APPLICATIONS

CROWD, OTHER = "bench-fairness-crowd", "bench-fairness-other"
IDLE_SAMPLES = 7
CHURN_SECONDS = 0.5
CHURN_LEAD_SECONDS = 20.0
CHURN_SAMPLES = 10
# Source: the issue "Measured: against the floor, and as it grows".
GOAL = 2.0


async def measure(ground: BenchPlatform, count: int) -> None:
    async with (
        ground.namespace(CROWD),
        ground.namespace(OTHER),
        EventTimeline.of(ground, CROWD, applications_only=True) as crowd,
        EventTimeline.of(ground, OTHER, applications_only=True) as other,
    ):
        idle, median = await alone(ground, other)
        begun = time.time()
        names = [f"crowd-{number}" for number in range(count)]
        bodies = (manifest(CROWD, name, COMMON) for name in names)
        await asyncio.gather(*(ground.kube.create(APPLICATIONS, body, CROWD) for body in bodies))
        samples: list[float] = []
        # Samples late in the crowd's time say as much as the first ones.
        while (before := crowd.count("running")) < count * 0.8:
            took = await single(ground, other, f"single-{len(samples)}")
            samples.append(took)
            print(
                f"with {count - before} of {count} under way: {took:.1f} s, {took / median:.1f} times its idle time"
                f" (goal {GOAL:.0f}); {crowd.count('running') - before} of the crowd became Running meanwhile",
                flush=True,
            )
        await asyncio.gather(*(crowd.running(name, seconds=LONGEST_SECONDS) for name in names))
        print(f"the crowd: {time.time() - begun:.0f} s, {len(crowd.failures)} failures", flush=True)
    keep("fairness", {"count": count, "idle": idle, "samples": samples})


async def measure_churn(ground: BenchPlatform, objects: int) -> None:
    async with (
        ground.namespace(CROWD),
        ground.namespace(OTHER),
        EventTimeline.of(ground, CROWD, applications_only=True) as crowd,
        EventTimeline.of(ground, OTHER, applications_only=True) as other,
    ):
        idle, median = await alone(ground, other)
        names = [f"churn-{number}" for number in range(objects)]
        bodies = (manifest(CROWD, name, COMMON) for name in names)
        await asyncio.gather(*(ground.kube.create(APPLICATIONS, body, CROWD) for body in bodies))
        await asyncio.gather(*(crowd.running(name, seconds=LONGEST_SECONDS) for name in names))
        churning = asyncio.create_task(churn(ground, names))
        # Longer than the first waits of a burst, to measure the lasting effect.
        await asyncio.sleep(CHURN_LEAD_SECONDS)
        samples = []
        for number in range(CHURN_SAMPLES):
            samples.append(await single(ground, other, f"single-{number}"))
            took = samples[-1]
            print(
                f"beside the churn: {took:.1f} s, {took / median:.1f} times its idle time (goal {GOAL:.0f})", flush=True
            )
        churning.cancel()
        await asyncio.gather(churning, return_exceptions=True)
    keep("churn", {"objects": objects, "idle": idle, "samples": samples})


async def churn(ground: BenchPlatform, names: Sequence[str]) -> None:
    """Change each object twice a second until cancelled."""
    for number in itertools.count():
        begun = time.monotonic()
        change = [{"op": "add", "path": "/spec/imageRef", "value": f"registry.example/bench:{number}"}]
        await asyncio.gather(*(ground.kube.json_patch(APPLICATIONS, name, change, CROWD) for name in names))
        await asyncio.sleep(max(0.0, begun + CHURN_SECONDS - time.monotonic()))


async def alone(ground: BenchPlatform, sight: EventTimeline) -> tuple[list[float], float]:
    """Return how long a single application takes on an idle platform, and the median."""
    # The first two samples warm the connections.
    idle = [await single(ground, sight, f"idle-{number}") for number in range(IDLE_SAMPLES + 2)][2:]
    median = statistics.median(idle)
    print(f"alone: p50 {median * 1000:.0f} ms of {len(idle)}", flush=True)
    return idle, median


async def single(ground: BenchPlatform, sight: EventTimeline, name: str) -> float:
    """Apply one application, and return how long it took until Running. The application stays."""
    begun = time.time()
    await ground.kube.create(APPLICATIONS, manifest(OTHER, name, COMMON), OTHER)
    return await sight.running(name, seconds=LONGEST_SECONDS) - begun


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--churn", type=int, default=0, metavar="OBJECTS", help="change so many instead of the crowd")
    arguments = parser.parse_args()
    if arguments.churn:
        run_on_platform(partial(measure_churn, objects=arguments.churn))
    else:
        run_on_platform(partial(measure, count=arguments.count))
