"""A provision, an update of imageRef and a cleanup against their floors: on the same backends, in one run, in turn.

    make bench            # or: uv run python -m bench.provision --count 50

Each is measured as a person with `kubectl` sees it: from the request that creates, changes or deletes the object to the
status Running of that generation, or to the object's end; status is awaited by a watch. What the simulated pods take by
themselves is shown apart and left out of the ratio. `bench/floor.py` has the floors.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from functools import partial
from typing import Any

from temporalio.client import Client

from bench.applications import COMMON, KINDS, NEXT_IMAGE, manifest, run_of, target_of
from bench.attempts import CompletedActivity, attempts_of
from bench.floor import Floor, Took
from bench.platform import BenchPlatform, keep, percentile, run_on_platform
from bench.timeline import EventTimeline
from clients.resources import APPLICATIONS

NAMESPACE = "bench-provision"
# Not counted: these warm the connections, and the caches of Keycloak and Temporal.
WARM_UP = 3
# Leftovers of the previous operation end meanwhile: Events, the garbage collection of ReplicaSets.
PAUSE_SECONDS = 0.1
# Times the floor at p50. Source: the issue "Measured: against the floor, and as it grows".
GOALS = {"without auth": 2.0, "with auth": 1.15}
OPERATIONS = ("provision", "update", "cleanup")


class Measured:
    """All samples of one kind of application."""

    def __init__(self) -> None:
        self.floors: defaultdict[str, list[Took]] = defaultdict(list)
        self.plattr: defaultdict[str, list[Took]] = defaultdict(list)
        self.attempts: list[list[CompletedActivity]] = []


async def measure(ground: BenchPlatform, count: int) -> None:
    endpoints = ground.platform.endpoints
    temporal = await Client.connect(endpoints.temporal_address)
    results: list[dict[str, Any]] = []
    async with ground.namespace(NAMESPACE), EventTimeline.of(ground, NAMESPACE) as sight:
        floor = await Floor.connect(endpoints, ground.kube, sight)
        for kind, extra in KINDS.items():
            measured = Measured()
            for number in range(count + WARM_UP):
                spec, name = COMMON | extra, f"{kind.replace(' ', '-')}-{number}"
                await through_floor(floor, f"f-{name}", spec, measured)
                await through_plattr(ground, sight, temporal, f"p-{name}", spec, measured)
            results += show(kind, measured, count)
            show_attempts(measured.attempts[WARM_UP:])
        await floor.close()
    keep("provision", results)


async def through_floor(floor: Floor, name: str, spec: dict[str, Any], measured: Measured) -> None:
    await floor.log_in()
    target = target_of(NAMESPACE, name, spec)
    for operation, act in zip(OPERATIONS, (floor.provision, floor.update, floor.clean_up), strict=True):
        measured.floors[operation].append(await act(target))
        await asyncio.sleep(PAUSE_SECONDS)


async def through_plattr(
    ground: BenchPlatform, sight: EventTimeline, temporal: Client, name: str, spec: dict[str, Any], measured: Measured
) -> None:
    kube, stem = ground.kube, target_of(NAMESPACE, name, spec).names.stem

    begun = time.time()
    await kube.create(APPLICATIONS, manifest(NAMESPACE, name, spec), NAMESPACE)
    whole = await sight.running(name) - begun
    attempts = await attempts_of(temporal, run_of(NAMESPACE, name))
    waited = await sight.available(stem) - _rollout_began(attempts)
    measured.plattr["provision"].append(Took(whole, max(0.0, waited)))
    measured.attempts.append(attempts)
    await asyncio.sleep(PAUSE_SECONDS)

    begun = time.time()
    change = [{"op": "replace", "path": "/spec/imageRef", "value": NEXT_IMAGE["imageRef"]}]
    await kube.json_patch(APPLICATIONS, name, change, NAMESPACE)
    whole = await sight.running(name, 2) - begun
    attempts = await attempts_of(temporal, run_of(NAMESPACE, name))
    waited = await sight.available(stem, 2) - _rollout_began(attempts)
    measured.plattr["update"].append(Took(whole, max(0.0, waited)))
    await asyncio.sleep(PAUSE_SECONDS)

    begun = time.time()
    await kube.delete(APPLICATIONS, name, NAMESPACE)
    whole = await sight.gone(name) - begun
    deployment_gone, pods_gone = await sight.pods_end(stem)
    measured.plattr["cleanup"].append(Took(whole, pods_gone - deployment_gone))
    await asyncio.sleep(PAUSE_SECONDS)


def _rollout_began(attempts: list[CompletedActivity]) -> float:
    return [attempt.started for attempt in attempts if attempt.activity == "await_rollout"][-1]


def show(kind: str, measured: Measured, count: int) -> list[dict[str, Any]]:
    """Print the rows of one kind, in milliseconds and without the wait for pods, and return them."""
    print(f"\n{kind}, {count} of each in turn; ms without the wait for pods, which stands in brackets (p50)")
    print(f"    {'':12}{'floor p50':>16}{'p99':>7}{'Plattr p50':>17}{'p99':>7}{'ratio p50':>11}{'p99':>6}{'goal':>6}")
    rows = []
    for operation in OPERATIONS:
        row: dict[str, Any] = {"kind": kind, "operation": operation, "count": count, "goal": GOALS[kind]}
        for side, samples in (("floor", measured.floors), ("plattr", measured.plattr)):
            took = samples[operation][WARM_UP:]
            row[side] = [percentile([each.own for each in took], hundredth) * 1000 for hundredth in (50, 99)]
            row[f"{side}_pods"] = statistics.median(each.pods for each in took) * 1000
        (floor, floor_99), (plattr, plattr_99) = row["floor"], row["plattr"]
        print(
            f"    {operation:12}{floor:>9.0f} ({row['floor_pods']:>4.0f}){floor_99:>7.0f}"
            f"{plattr:>10.0f} ({row['plattr_pods']:>4.0f}){plattr_99:>7.0f}"
            f"{plattr / floor:>11.2f}{plattr_99 / floor_99:>6.2f}{GOALS[kind]:>6.2f}"
        )
        rows.append(row)
    return rows


def show_attempts(runs: list[list[CompletedActivity]]) -> None:
    """Print, from the provisions' histories, how much time each activity and each gap between two took."""
    # A history that is read as soon as the status was seen may not have its last activity yet.
    print(f"    {max(map(len, runs))} activities of a provision, p50 in ms:{'waited':>12}{'took':>7}{'then':>7}")
    by_name: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for attempts in runs:
        nexts = [*(attempt.scheduled for attempt in attempts[1:]), attempts[-1].completed]
        for attempt, after in zip(attempts, nexts, strict=True):
            waited, took = attempt.started - attempt.scheduled, attempt.completed - attempt.started
            by_name[attempt.activity].append((waited, took, after - attempt.completed))
    for name, samples in by_name.items():
        waited, took, then = (statistics.median(column) * 1000 for column in zip(*samples, strict=True))
        print(f"      {name:36}{waited:>8.1f}{took:>7.1f}{then:>7.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30)
    run_on_platform(partial(measure, count=parser.parse_args().count))
