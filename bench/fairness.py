"""One namespace applies hundreds; how long another's single application takes, against the same on an idle platform.

uv run python -m bench.fairness --count 500
"""

import argparse
import asyncio
import statistics
import time
from functools import partial

from activities.clients.resources import APPLICATIONS
from bench.applications import COMMON, manifest
from bench.ground import LONGEST_SECONDS, Ground, keep, run_on_platform
from bench.sight import Sight

CROWD, OTHER = "bench-fairness-crowd", "bench-fairness-other"
IDLE_SAMPLES = 7
# Source: the issue "Measured: against the floor, and as it grows".
GOAL = 2.0


async def measure(ground: Ground, count: int) -> None:
    async with (
        ground.namespace(CROWD),
        ground.namespace(OTHER),
        Sight.of(ground, CROWD, applications_only=True) as crowd,
        Sight.of(ground, OTHER, applications_only=True) as other,
    ):
        # The first two warm the connections.
        idle = [await single(ground, other, f"idle-{number}") for number in range(IDLE_SAMPLES + 2)][2:]
        median = statistics.median(idle)
        print(f"alone: p50 {median * 1000:.0f} ms of {len(idle)}", flush=True)
        begun = time.time()
        names = [f"crowd-{number}" for number in range(count)]
        bodies = (manifest(CROWD, name, COMMON) for name in names)
        await asyncio.gather(*(ground.kube.create(APPLICATIONS, body, CROWD) for body in bodies))
        samples: list[float] = []
        # Those that come late in the crowd's time say as much as the first.
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


async def single(ground: Ground, sight: Sight, name: str) -> float:
    """Apply one application and return how long it took to be Running; it stays."""
    begun = time.time()
    await ground.kube.create(APPLICATIONS, manifest(OTHER, name, COMMON), OTHER)
    return await sight.running(name, seconds=LONGEST_SECONDS) - begun


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    run_on_platform(partial(measure, count=parser.parse_args().count))
