"""Many applications at once: how long until the last is Running, what each waits, what every process spends.

uv run python -m bench.load --counts 10,100

All have a database and the ConfigMaps of redis and search; each tenth has storage and auth besides.
"""

import argparse
from functools import partial
from typing import Any

from bench.applications import COMMON, KINDS
from bench.crowd import apply_all, remove_all
from bench.platform import BenchPlatform, keep, percentile, run_on_platform
from bench.processes import Meter
from bench.timeline import EventTimeline

NAMESPACE = "bench-load"
# Source: the issue "Measured: against the floor, and as it grows".
WORKER_MEGABYTES = 250


async def measure(ground: BenchPlatform, counts: list[int]) -> None:
    async with ground.namespace(NAMESPACE), EventTimeline.of(ground, NAMESPACE, applications_only=True) as sight:
        # A first realm, during which Java compiles Keycloak's code.
        await load(ground, sight, 1, prefix="warm")
        results = [await load(ground, sight, count, prefix=f"load-{count}") for count in counts]
    keep("load", results)


async def load(ground: BenchPlatform, sight: EventTimeline, count: int, *, prefix: str) -> dict[str, Any]:
    specs = {f"{prefix}-{number}": COMMON | (KINDS["with auth"] if number % 10 == 0 else {}) for number in range(count)}
    async with Meter.on(ground.platform) as meter:
        outcome = await apply_all(ground.kube, sight, NAMESPACE, specs)
    worker = meter.most_resident["worker"]
    print(f"\n{count} at once: {outcome}; worker {worker:.0f} MB at most (goal {WORKER_MEGABYTES})")
    print(meter.table(count), flush=True)
    async with Meter.on(ground.platform) as after:
        seconds = await remove_all(ground.kube, sight, NAMESPACE, list(specs))
    print(
        f"    all gone {seconds:.1f} s after their deletion, {count / seconds:.2f} a second; {after.bound}", flush=True
    )
    return {
        "count": count,
        "seconds": outcome.whole,
        "rate": outcome.rate,
        "p50": percentile(outcome.each, 50),
        "p99": percentile(outcome.each, 99),
        "failures": outcome.failures,
        "cpu": meter.cpu,
        "most_resident": meter.most_resident,
        "cleanup_seconds": seconds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,100", help="how many at once, one after the other")
    chosen = [int(count) for count in parser.parse_args().counts.split(",")]
    run_on_platform(partial(measure, counts=chosen))
