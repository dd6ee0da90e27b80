"""Watch a namespace as `kubectl get --watch` does, and record when things happen.

Polling would cost as much as Plattr does. The moments are of the wall clock, because they are compared with those of
Temporal's histories on the same machine.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, Self

from bench.platform import BenchPlatform
from clients.kube import KubeClient
from clients.resources import APPLICATIONS, DEPLOYMENTS, PODS, Json, Resource
from plattr.rollout import has_settled

WAIT_SECONDS = 120.0

Fact = Literal["running", "gone", "available", "deployment gone", "pods gone"]


class EventTimeline:
    """The first moment of each fact about a namespace's applications and their Deployments and pods."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._moments: dict[tuple[Fact, str, int], asyncio.Future[float]] = {}
        self._pods: defaultdict[str, set[str]] = defaultdict(set)
        # The applications that have ever been Failed, and the conditions of the last such status.
        self.failures: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, ground: BenchPlatform, namespace: str, *, applications_only: bool = False) -> AsyncIterator[Self]:
        """Watch a namespace while the block runs, over its own connections."""
        kube = await KubeClient.connect(ground.kubeconfig)
        sight = cls(kube, namespace)
        looks: list[tuple[Resource, Callable[[str, Json], None]]] = [(APPLICATIONS, sight._look)]
        if not applications_only:
            looks += [(DEPLOYMENTS, sight._look_at_deployment), (PODS, sight._look_at_pod)]
        versions = [(await kube.snapshot(resource, namespace)).resource_version for resource, _ in looks]
        tasks = [
            asyncio.create_task(sight._follow(resource, version, look))
            for (resource, look), version in zip(looks, versions, strict=True)
        ]
        try:
            yield sight
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await kube.close()

    async def running(self, name: str, generation: int = 1, *, seconds: float = WAIT_SECONDS) -> float:
        """Return when the application's status became Running for this generation of its spec."""
        return await self._moment("running", name, generation, seconds)

    async def gone(self, name: str, *, seconds: float = WAIT_SECONDS) -> float:
        """Return when the application was gone, including its finalizer."""
        return await self._moment("gone", name, 0, seconds)

    async def available(self, name: str, generation: int = 1) -> float:
        """Return when every replica of this generation of the Deployment was available."""
        return await self._moment("available", name, generation, WAIT_SECONDS)

    async def pods_end(self, name: str) -> tuple[float, float]:
        """Return when the Deployment was gone, and when the last of its pods was gone."""
        deployment = await self._moment("deployment gone", name, 0, WAIT_SECONDS)
        return deployment, await self._moment("pods gone", name, 0, WAIT_SECONDS)

    def count(self, fact: Fact) -> int:
        """Return how often a fact has been recorded."""
        return sum(known == fact and moment.done() for (known, _, _), moment in self._moments.items())

    async def _moment(self, fact: Fact, name: str, generation: int, seconds: float) -> float:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._future(fact, name, generation))
        except TimeoutError:
            failure = self.failures.get(name, "no failure was seen")
            raise SystemExit(f"cannot measure: {name}: not {fact} after {seconds:.0f} s; {failure}") from None

    def _future(self, fact: Fact, name: str, generation: int) -> asyncio.Future[float]:
        return self._moments.setdefault((fact, name, generation), asyncio.get_running_loop().create_future())

    def _note(self, fact: Fact, name: str, generation: int = 0) -> None:
        future = self._future(fact, name, generation)
        if not future.done():
            future.set_result(time.time())

    async def _follow(self, resource: Resource, version: str, look: Callable[[str, Json], None]) -> None:
        while True:
            async for event in self._kube.watch(resource, version, self._namespace, timeout_seconds=3600):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    look(event["type"], event["object"])

    def _look(self, event: str, body: Json) -> None:
        name, status = body["metadata"]["name"], body.get("status", {})
        if event == "DELETED":
            self._note("gone", name)
        elif status.get("phase") == "Running":
            self._note("running", name, status.get("observedGeneration", 0))
        elif status.get("phase") == "Failed":
            self.failures[name] = str(status.get("conditions"))

    def _look_at_deployment(self, event: str, body: Json) -> None:
        if event == "DELETED":
            self._note("deployment gone", body["metadata"]["name"])
        elif has_settled(body):
            self._note("available", body["metadata"]["name"], body["metadata"]["generation"])

    def _look_at_pod(self, event: str, body: Json) -> None:
        # The name of a Deployment's pod is {deployment}-{hash of the template}-{five letters}.
        owner, pod = body["metadata"]["name"].rsplit("-", 2)[0], body["metadata"]["name"]
        if event != "DELETED":
            self._pods[owner].add(pod)
            return
        self._pods[owner].discard(pod)
        if not self._pods[owner]:
            self._note("pods gone", owner)
