"""Apply many applications at once, wait for them, and delete them."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.applications import manifest
from bench.platform import LONGEST_SECONDS, percentile
from bench.timeline import EventTimeline
from clients.kube import KubeClient
from clients.resources import APPLICATIONS


@dataclass(frozen=True)
class Outcome:
    """The result for many applications: the seconds of each one from its own request to Running, and of all of them."""

    each: Sequence[float]
    whole: float
    failures: int

    @property
    def rate(self) -> float:
        """Return how many applications became Running per second."""
        return len(self.each) / self.whole

    def __str__(self) -> str:
        return (
            f"{len(self.each)} Running after {self.whole:.1f} s, {self.rate:.2f} a second;"
            f" each p50 {percentile(self.each, 50):.1f} s, p99 {percentile(self.each, 99):.1f} s;"
            f" {self.failures} failures"
        )


async def apply_all(
    kube: KubeClient, sight: EventTimeline, namespace: str, specs: Mapping[str, dict[str, Any]]
) -> Outcome:
    """Apply all applications at once, and wait until the last one is Running."""
    begun, applied = time.time(), {}

    async def apply(name: str, spec: dict[str, Any]) -> None:
        await kube.create(APPLICATIONS, manifest(namespace, name, spec), namespace)
        applied[name] = time.time()

    await asyncio.gather(*(apply(name, spec) for name, spec in specs.items()))
    running = await asyncio.gather(*(sight.running(name, seconds=LONGEST_SECONDS) for name in specs))
    each = [moment - applied[name] for name, moment in zip(specs, running, strict=True)]
    return Outcome(each=each, whole=max(running) - begun, failures=len(sight.failures.keys() & specs.keys()))


async def remove_all(kube: KubeClient, sight: EventTimeline, namespace: str, names: Sequence[str]) -> float:
    """Delete all applications at once, and return the seconds until the last one is gone."""
    begun = time.time()
    await asyncio.gather(*(kube.delete(APPLICATIONS, name, namespace) for name in names))
    gone = await asyncio.gather(*(sight.gone(name, seconds=LONGEST_SECONDS) for name in names))
    return max(gone) - begun
