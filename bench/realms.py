"""What many realms in one Keycloak cost the next one: its calls, and a whole application with auth.

uv run python -m bench.realms --count 1000

The realms are made by the client that the worker uses, but belong to nobody: Kubernetes and Temporal stay empty.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable
from functools import partial

from bench.applications import COMMON, target_of
from bench.platform import BenchPlatform, keep, percentile, run_on_platform
from bench.standing import one_more
from bench.timeline import EventTimeline
from clients.keycloak import KeycloakClient
from plattr import realm as realms
from plattr.settings import Settings

NAMESPACE = "bench-realms"
AUTH = COMMON | {"auth": {"enabled": True}}
PROBES = 40
APPLICATIONS = 8
# 4: with more makers Keycloak does not create more realms per second.
MAKERS = 4
STEPS = 4


async def measure(ground: BenchPlatform, count: int) -> None:
    keycloak = KeycloakClient.connect(Settings.from_mapping(ground.platform.environment("worker")))
    rows = []
    try:
        async with ground.namespace(NAMESPACE), EventTimeline.of(ground, NAMESPACE, applications_only=True) as sight:
            # During the first calls Java compiles Keycloak's code.
            await probe(keycloak, PROBES // 2)
            await applications(ground, sight, "warm", 3)
            made: list[str] = []
            for number in range(STEPS + 1):
                wanted = [f"full-{each}" for each in range(len(made), count * number // STEPS)]
                await fill(keycloak, wanted)
                made += wanted
                rows.append(await row(ground, sight, keycloak, len(made)))
            if not ground.is_own:
                for name in made:
                    await keycloak.delete_realm(name)
    finally:
        await keycloak.close()
    keep("realms", rows)


async def fill(keycloak: KeycloakClient, names: list[str]) -> None:
    begun, waiting = time.monotonic(), iter(names)

    async def maker() -> None:
        for name in waiting:
            await create(keycloak, name)

    await asyncio.gather(*(maker() for _ in range(MAKERS)))
    if names:
        seconds = time.monotonic() - begun
        print(f"{len(names)} realms more in {seconds:.0f} s, {len(names) / seconds:.1f} a second", flush=True)


async def row(ground: BenchPlatform, sight: EventTimeline, keycloak: KeycloakClient, count: int) -> dict[str, object]:
    calls = await probe(keycloak, PROBES)
    took = await applications(ground, sight, f"beside-{count}", APPLICATIONS)
    words = ", ".join(
        f"{call} {statistics.median(values) * 1000:.0f} ({percentile(values, 95) * 1000:.0f})"
        for call, values in calls.items()
    )
    whole = f"{statistics.median(took) * 1000:.0f} ({max(took) * 1000:.0f})"
    print(f"{count} realms: p50 (p95) in ms: {words}; an application with auth {whole}; goal: create p95 below 10 s")
    return {"count": count, "calls": calls, "applications": took}


async def probe(keycloak: KeycloakClient, times: int) -> dict[str, list[float]]:
    """Create, read and delete a realm, one after the other; return the seconds of each call."""
    took: dict[str, list[float]] = defaultdict(list)

    async def timed(call: str, awaitable: Awaitable[object]) -> None:
        begun = time.perf_counter()
        await awaitable
        took[call].append(time.perf_counter() - begun)

    for number in range(times):
        name = f"probe-{number}"
        await timed("create", create(keycloak, name))
        await timed("read", keycloak.get_realm(name))
        await timed("read client", keycloak.find_client(name, f"{name}-app"))
        await timed("delete", keycloak.delete_realm(name))
    return dict(took)


async def create(keycloak: KeycloakClient, name: str) -> None:
    target = target_of(NAMESPACE, name, AUTH)
    representation = realms.build_realm(target) | {"realm": name, "clients": [realms.build_client(target)]}
    await keycloak.create_realm(representation)


async def applications(ground: BenchPlatform, sight: EventTimeline, name: str, times: int) -> list[float]:
    return [await one_more(ground, sight, NAMESPACE, f"{name}-{number}", AUTH) for number in range(times)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="takes some 5 minutes to fill")
    run_on_platform(partial(measure, count=parser.parse_args().count))
