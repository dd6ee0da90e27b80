"""What Plattr and Temporal add to the backends' own calls: both on the same backends, in one run, in turn.

    make bench            # or: uv run python -m bench.provision --count 50

Prints the distribution of each, their difference and ratio. A provision is measured from the creation of the object to
the moment the API server holds its status Running; the floor from the first call to the pods being available. Both
include the simulated pods' own start.
"""

import argparse
import asyncio
import platform as machine
import statistics
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from activities.clients.kube import KubeClient
from activities.clients.resources import (
    APPLICATIONS,
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from bench.floor import Floor
from plattr.objects import Envelope, Kind
from plattr.target import Target, application_target
from stack.folders import default_state
from stack.platform import Platform

# 300 ms: what Plattr and Temporal may add at p50 on an idle machine.
GOAL_SECONDS = 0.3
BUCKETS = [{"name": "uploads", "public": True}, {"name": "private"}]
KINDS: dict[str, dict[str, Any]] = {
    "without auth": {"storage": {"enabled": True, "buckets": BUCKETS}},
    "with auth": {"storage": {"enabled": True, "buckets": BUCKETS}, "auth": {"enabled": True}},
}
COMMON: dict[str, Any] = {
    "repository": "https://git.example/bench",
    "framework": "docker",
    "environment": "staging",
    "imageRef": "registry.example/bench:1",
    "database": {"enabled": True},
    "redis": {"enabled": True},
    "search": {"enabled": True},
}
NAMESPACE = "bench"


def manifest(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "platform.internal/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}


def target_of(name: str, spec: dict[str, Any]) -> Target:
    metadata = {"name": name, "namespace": NAMESPACE, "uid": name, "creationTimestamp": datetime.now(UTC)}
    envelope = Envelope.from_api(Kind.APPLICATION, {"metadata": metadata, "spec": spec})
    return application_target(envelope, base_domain="bench.localhost")


async def through_plattr(kube: KubeClient, name: str, spec: dict[str, Any]) -> float:
    # A watch, as a person's `kubectl wait` would: asking every few milliseconds costs the API server as much as
    # Plattr's own calls do.
    version = (await kube.snapshot(APPLICATIONS, NAMESPACE)).resource_version
    begun = time.perf_counter()
    await kube.create(APPLICATIONS, manifest(name, spec), NAMESPACE)
    async for event in kube.watch(APPLICATIONS, version, NAMESPACE, timeout_seconds=120):
        status = event["object"].get("status", {}) if event["object"]["metadata"].get("name") == name else {}
        if status.get("phase") == "Running":
            return time.perf_counter() - begun
        if status.get("phase") == "Failed":
            raise SystemExit(f"cannot measure: {name} failed: {status}")
    raise SystemExit(f"cannot measure: {name} is not Running after 120 s")


async def gone(kube: KubeClient, name: str) -> None:
    await kube.delete(APPLICATIONS, name, NAMESPACE)
    while await kube.get(APPLICATIONS, name, NAMESPACE):
        await asyncio.sleep(0.02)


async def measure(platform: Platform, count: int) -> None:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    try:
        await compare(platform, kube, count)
    finally:
        await kube.close()


async def compare(platform: Platform, kube: KubeClient, count: int) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.create(NAMESPACES, body)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine.platform()}, {count} of each, one at a time, in turn")
    print(f"{'':14}{'floor p50':>11}{'p99':>9}{'Plattr p50':>12}{'p99':>9}{'added p50':>11}{'ratio':>7}")
    for kind, extra in KINDS.items():
        spec = COMMON | extra
        floors, provisions = [], []
        # The first two of each warm the connections and Keycloak's compiler; they are not counted.
        for number in range(count + 2):
            floor = await Floor.connect(platform.endpoints, kube)
            target = target_of(f"floor-{number}", spec)
            begun = time.perf_counter()
            await floor.provision(target)
            floors.append(time.perf_counter() - begun)
            await floor.remove(target)
            await floor.close()
            await clear_workload(kube, target)
            provisions.append(await through_plattr(kube, f"plattr-{number}", spec))
            await gone(kube, f"plattr-{number}")
        show(kind, floors[2:], provisions[2:])
    await kube.delete(NAMESPACES, NAMESPACE)


async def clear_workload(kube: KubeClient, target: Target) -> None:
    names = target.names
    for resource in (DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS, AUTOSCALERS, INGRESSES):
        await kube.delete(resource, names.stem, NAMESPACE)
    await kube.delete(INGRESSES, names.api_ingress, NAMESPACE)
    await kube.delete(SECRETS, names.database_secret, NAMESPACE)
    for feature in ("storage", "auth", "redis", "search"):
        await kube.delete(CONFIG_MAPS, names.config_map(feature), NAMESPACE)


def show(kind: str, floors: list[float], provisions: list[float]) -> None:
    def p(values: list[float], hundredth: int) -> float:
        return statistics.quantiles(values, n=100, method="inclusive")[hundredth - 1] * 1000

    added = p(provisions, 50) - p(floors, 50)
    print(
        f"{kind:14}{p(floors, 50):>8.0f} ms{p(floors, 99):>6.0f} ms{p(provisions, 50):>9.0f} ms"
        f"{p(provisions, 99):>6.0f} ms{added:>8.0f} ms{p(provisions, 50) / p(floors, 50):>7.2f}"
        f"   (goal: added at most {GOAL_SECONDS * 1000:.0f} ms)"
    )


def run_on_platform(
    work: Callable[[Platform, int], Coroutine[Any, Any, None]], *, about: str | None, count: int
) -> None:
    """Run a bench with --count on the benches' own platform; one that ran already goes on running."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--count", type=int, default=count)
    chosen = parser.parse_args().count
    platform = Platform(default_state().parent / "bench")
    was_running = platform.is_running
    platform.start(apps=("worker", "watcher"))
    try:
        asyncio.run(work(platform, chosen))
    finally:
        if not was_running:
            platform.stop()


if __name__ == "__main__":
    run_on_platform(measure, about=__doc__, count=30)
