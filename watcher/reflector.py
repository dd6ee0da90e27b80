"""List one resource, then watch it forever, without missing a change and without hanging."""

import logging
import random
import time
from asyncio import sleep
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from clients.kube import GoneError, KubeClient
from clients.resources import Json, Resource
from plattr.errors import PlattrError
from watcher.backoff import pause_seconds
from watcher.metrics import WatcherMetrics

logger = logging.getLogger(__name__)

# As in client-go's reflector a watch lives 5 to 10 minutes, so that replicas and servers share the load.
# https://github.com/kubernetes/client-go/blob/master/tools/cache/reflector.go
SHORTEST_WATCH_SECONDS = 300
LONGEST_WATCH_SECONDS = 600
# A watch that ends sooner without any event is a fault. Without a pause it would be a busy loop.
SHORT_WATCH_SECONDS = 1.0


Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Listed(Generic[Seen]):
    """Everything that exists now. What is not on the list is gone."""

    seen: list[Seen]


@dataclass(frozen=True)
class Changed(Generic[Seen]):
    """One event: ADDED, MODIFIED or DELETED."""

    type: str
    seen: Seen


class Reflector(Generic[Seen]):
    """The changes of one resource in all namespaces. Remembers a version, never an object.

    `read` extracts the wanted fields from each object at once. A list of thousands of large objects must never be in
    memory as a whole.
    """

    def __init__(
        self,
        kube: KubeClient,
        resource: Resource,
        read: Callable[[Json], Seen],
        metrics: WatcherMetrics,
        *,
        label_selector: str = "",
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._read = read
        self._metrics = metrics
        self._label_selector = label_selector
        self._version: str | None = None
        self._failures = 0
        self.alive_at = time.monotonic()
        """When the loop last did anything, even if it failed: an outage of the API server must not cause a restart."""
        self.heard_at: float | None = None
        """When the API server last sent anything: a list, an event, a bookmark, the end of a watch."""
        self.is_synced = False

    @property
    def name(self) -> str:
        """Return the name for logs and probes."""
        return self._resource.plural

    async def changes(self) -> AsyncIterator[Listed[Seen] | Changed[Seen]]:
        """Yield the list, then its changes. Yield a list again whenever the server has forgotten the version."""
        while True:
            self.alive_at = time.monotonic()
            try:
                if self._version is None:
                    yield await self._list()
                async for change in self._watch(self._version or ""):
                    yield change
            except GoneError:
                # An object that was deleted meanwhile is missing from the next list.
                logger.info("version expired, listing again", extra={"resource": self.name})
                self._version = None
                await self._pause_if_repeated()
            except PlattrError as error:
                # A refusal (missing rights, a CRD not yet installed) is retried too: nothing else can be done.
                self._failures += 1
                self._metrics.watch_errors.labels(self.name, error.reason).inc()
                pause = pause_seconds(self._failures)
                logger.warning(
                    "cannot watch, trying again",
                    extra={"resource": self.name, "cause": str(error), "pause_seconds": round(pause, 1)},
                )
                await sleep(pause)

    async def _list(self) -> Listed[Seen]:
        seen: list[Seen] = []
        version = ""
        async for page in self._kube.pages(self._resource, label_selector=self._label_selector):
            seen += [self._read(body) for body in page.items]
            version = page.resource_version
            self._hear()
        self._metrics.relists.labels(self.name).inc()
        self._version = version
        self.is_synced = True
        logger.info("listed", extra={"resource": self.name, "objects": len(seen)})
        return Listed(seen)

    async def _watch(self, version: str) -> AsyncIterator[Changed[Seen]]:
        began, has_spoken = time.monotonic(), False
        async for event in self._kube.watch(
            self._resource,
            version,
            timeout_seconds=random.randint(SHORTEST_WATCH_SECONDS, LONGEST_WATCH_SECONDS),  # noqa: S311  no secret
            label_selector=self._label_selector,
        ):
            self._hear()
            has_spoken, self._failures = True, 0
            self._metrics.events.labels(self.name, event["type"]).inc()
            if event["type"] != "BOOKMARK":
                yield Changed(event["type"], self._read(event["object"]))
            # Only after the consumer has handled the event: if it fails, it receives the event again.
            self._version = event["object"]["metadata"]["resourceVersion"]
        self._hear()
        if not has_spoken and time.monotonic() - began < SHORT_WATCH_SECONDS:
            await self._pause_if_repeated()

    def _hear(self) -> None:
        self.heard_at = self.alive_at = time.monotonic()

    async def _pause_if_repeated(self) -> None:
        self._failures += 1
        if self._failures > 1:
            await sleep(pause_seconds(self._failures))
