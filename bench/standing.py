"""What settled applications cost while nothing happens, and what they cost the next one.

uv run python -m bench.standing --count 300

They have a workload only, so that Kubernetes and Temporal are full and the other backends are thin; the one more is
whole, without storage and auth.
"""

import argparse
import asyncio
import re
import statistics
import time
from functools import partial
from typing import Any

import httpx
import yaml

from bench.applications import COMMON, THIN, manifest
from bench.crowd import apply_all
from bench.platform import BenchPlatform, keep, run_on_platform
from bench.processes import Meter
from bench.timeline import EventTimeline
from clients.resources import APPLICATIONS

NAMESPACE = "bench-standing"
PROBES = 15
# Work that continues for a while after the last change: Events, garbage collection, the cache of runs.
SETTLE_SECONDS = 10.0
IDLE_SECONDS = 20.0
CAUGHT_UP_SECONDS = 120.0


async def measure(ground: BenchPlatform, count: int) -> None:
    async with ground.namespace(NAMESPACE), EventTimeline.of(ground, NAMESPACE, applications_only=True) as sight:
        # The first three samples warm the connections.
        empty = [await one_more(ground, sight, NAMESPACE, f"empty-{number}", COMMON) for number in range(PROBES + 3)][
            3:
        ]
        print(f"empty: one more p50 {statistics.median(empty) * 1000:.0f} ms of {PROBES}", flush=True)
        idle_empty = await idle(ground, "empty")
        outcome = await apply_all(ground.kube, sight, NAMESPACE, {f"settled-{each}": THIN for each in range(count)})
        print(f"filled: {outcome}", flush=True)
        idle_full = await idle(ground, f"{count} settled")
        full = [await one_more(ground, sight, NAMESPACE, f"full-{number}", COMMON) for number in range(PROBES)]
        ratio = statistics.median(full) / statistics.median(empty)
        print(f"{count} settled: one more p50 {statistics.median(full) * 1000:.0f} ms, {ratio:.2f} times (goal 1.2)")
        caught_up = await restart_watcher(ground, count)
        print(f"watcher restarted: knows all {count} after {caught_up:.1f} s (goal 10)")
    keep(
        "standing",
        {
            "count": count,
            "empty": empty,
            "full": full,
            "idle_empty": idle_empty,
            "idle_full": idle_full,
            "caught_up": caught_up,
        },
    )


async def one_more(
    ground: BenchPlatform, sight: EventTimeline, namespace: str, name: str, spec: dict[str, Any]
) -> float:
    """Apply an application, delete it again, and return the seconds until it was Running."""
    begun = time.time()
    await ground.kube.create(APPLICATIONS, manifest(namespace, name, spec), namespace)
    took = await sight.running(name) - begun
    await ground.kube.delete(APPLICATIONS, name, namespace)
    await sight.gone(name)
    return took


async def idle(ground: BenchPlatform, when: str) -> dict[str, Any]:
    """Measure a period without any request from a person."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = requests(ground)
    async with Meter.on(ground.platform) as meter:
        await asyncio.sleep(IDLE_SECONDS)
    # One of the requests was for the first count.
    calls = (requests(ground) - before - 1) / meter.seconds
    percents = {service: spent / meter.seconds * 100 for service, spent in meter.cpu.items()}
    busy = percents["worker"] + percents["watcher"]
    print(
        f"{when}, idle for {meter.seconds:.0f} s: worker {percents['worker']:.1f} % and watcher"
        f" {percents['watcher']:.1f} % of a core, together {busy:.1f} (goal 2); temporal {percents['temporal']:.1f} %;"
        f" {calls:.2f} requests a second to the API server, from everybody (goal near 0)",
        flush=True,
    )
    return {"percents": percents, "requests": calls, "resident": meter.most_resident}


def requests(ground: BenchPlatform) -> float:
    """Return how many requests the API server has answered. A watch counts when it ends."""
    kubeconfig = yaml.safe_load(ground.platform.endpoints.kubeconfig_admin.read_text())
    headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    url = f"{ground.platform.endpoints.kubernetes_url}/metrics"
    # The certificate is the local platform's own, on the loopback.
    text = httpx.get(url, headers=headers, verify=False, timeout=30, trust_env=False).text  # noqa: S501
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("apiserver_request_total{")
    )


async def restart_watcher(ground: BenchPlatform, count: int) -> float:
    """Restart the watcher; return the seconds until all are listed and every reconcile request is sent."""
    platform = ground.platform
    await asyncio.to_thread(platform.stop_service, "watcher")
    url = f"http://127.0.0.1:{platform.endpoints.watcher_metrics_port}/metrics"
    begun = time.monotonic()
    starting = asyncio.create_task(asyncio.to_thread(platform.start_service, "watcher"))
    async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(CAUGHT_UP_SECONDS):
        while True:
            try:
                text = (await http.get(url)).text
            except httpx.TransportError:
                text = ""
            if known(text, "plattr_objects") >= count and known(text, "plattr_watcher_queue_depth") == 0:
                break
            await asyncio.sleep(0.05)
    caught_up = time.monotonic() - begun
    await starting
    return caught_up


def known(text: str, metric: str) -> float:
    """Return a metric's sum over its labels; -1 if the metric is missing."""
    values = re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, values)) if values else -1.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="1000 and 3000 take minutes to fill")
    run_on_platform(partial(measure, count=parser.parse_args().count))
