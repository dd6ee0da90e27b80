"""What worker and watcher weigh with many applications: resident memory before, during and after, and the rate.

uv run python -m bench.footprint --count 100
"""

import argparse
from functools import partial

import psutil

from bench.applications import COMMON
from bench.crowd import apply_all, remove_all
from bench.platform import BenchPlatform, run_on_platform
from bench.timeline import EventTimeline
from stack.platform import Platform

NAMESPACE = "bench-footprint"
# 200 MB each with 100 applications. Source: the first issue's "Size and speed".
GOAL_MEGABYTES = 200


def resident(platform: Platform) -> dict[str, float]:
    """Return the resident memory of worker and watcher in MB."""
    pids = {status.service: status.pid for status in platform.status()}
    return {app: psutil.Process(pids[app]).memory_info().rss / 1e6 for app in ("worker", "watcher")}


async def fill(ground: BenchPlatform, count: int) -> None:
    specs = {f"many-{number}": COMMON for number in range(count)}
    async with ground.namespace(NAMESPACE), EventTimeline.of(ground, NAMESPACE, applications_only=True) as sight:
        show("idle", ground.platform)
        outcome = await apply_all(ground.kube, sight, NAMESPACE, specs)
        show(f"{count} running", ground.platform)
        print(f"{count} applications (database, redis, search) at once: {outcome}")
        await remove_all(ground.kube, sight, NAMESPACE, list(specs))
        show("all gone", ground.platform)


def show(when: str, platform: Platform) -> None:
    sizes = ", ".join(f"{app} {size:.0f} MB" for app, size in resident(platform).items())
    print(f"{when:16}{sizes}   (goal: at most {GOAL_MEGABYTES} MB each)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    run_on_platform(partial(fill, count=parser.parse_args().count))
