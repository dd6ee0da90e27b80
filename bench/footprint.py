"""What worker and watcher weigh with many applications: resident memory before, during and after, and the rate.

uv run python -m bench.footprint --count 100
"""

import asyncio
import time
from typing import Any

import psutil

from activities.clients.kube import KubeClient
from activities.clients.resources import APPLICATIONS, NAMESPACES
from bench.provision import COMMON, NAMESPACE, gone, manifest, run_on_platform
from stack.platform import Platform

# 200 MB each with 100 applications. Source: the first issue's "Size and speed".
GOAL_MEGABYTES = 200


def resident(platform: Platform) -> dict[str, float]:
    """Return the resident memory of worker and watcher in MB."""
    pids = {status.service: status.pid for status in platform.status()}
    return {app: psutil.Process(pids[app]).memory_info().rss / 1e6 for app in ("worker", "watcher")}


async def fill(platform: Platform, count: int) -> None:
    kube = await KubeClient.connect(str(platform.endpoints.kubeconfig_admin))
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.create(NAMESPACES, body)
    try:
        show("idle", platform)
        names = [f"many-{number}" for number in range(count)]
        begun = time.perf_counter()
        await asyncio.gather(*(kube.create(APPLICATIONS, manifest(name, COMMON), NAMESPACE) for name in names))
        while True:
            bodies = await kube.list(APPLICATIONS, NAMESPACE)
            running = sum(body.get("status", {}).get("phase") == "Running" for body in bodies)
            if running >= count:
                break
            await asyncio.sleep(0.2)
        took = time.perf_counter() - begun
        show(f"{count} running", platform)
        print(f"{count} applications (database, redis, search) at once: {took:.1f} s, {count / took:.1f} a second")
        await asyncio.gather(*(gone(kube, name) for name in names))
        show("all gone", platform)
    finally:
        await kube.delete(NAMESPACES, NAMESPACE)
        await kube.close()


def show(when: str, platform: Platform) -> None:
    sizes = ", ".join(f"{app} {size:.0f} MB" for app, size in resident(platform).items())
    print(f"{when:16}{sizes}   (goal: at most {GOAL_MEGABYTES} MB each)")


if __name__ == "__main__":
    run_on_platform(fill, about=__doc__, count=100)
