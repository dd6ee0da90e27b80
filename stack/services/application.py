"""Plattr's own processes, the worker and the watcher, run beside the services they talk to."""

import os
import sys

from stack.endpoints import Endpoints, environment
from stack.processes import Command
from stack.services.base import Service, Site, answers

APPS = ("worker", "watcher")

# Two arenas: glibc gives each of Temporal's and boto3's threads its own, and none of them ever shrinks.
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}


class Application(Service):
    """`python -m worker` or `python -m watcher`, with the platform's settings in its environment."""

    # The worker gives its running activities 25 s.
    stop_grace_seconds = 30

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site)
        self.app = name

    @property
    def address(self) -> str:
        """Its metrics and health."""
        return self.site.url(f"{self.app}-metrics")

    def prepare(self) -> None:
        """It keeps no files."""

    def command(self) -> Command:
        """Run the module with this interpreter; settings of the caller's shell do not reach it, OTEL_* do."""
        passed = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
        return Command(
            arguments=(sys.executable, "-m", self.app),
            environment=ALLOCATOR | passed | environment(Endpoints.of(self.site), self.app),
            folder=self.site.folders.state,
        )

    def is_healthy(self) -> bool:
        """Its own readiness."""
        return answers(f"{self.address}/readyz")


class Worker(Application):
    """The Temporal worker."""

    name = "worker"
    ports = ("worker-metrics",)

    def __init__(self, site: Site) -> None:
        super().__init__(site, "worker")


class Watcher(Application):
    """The watcher."""

    name = "watcher"
    ports = ("watcher-metrics",)

    def __init__(self, site: Site) -> None:
        super().__init__(site, "watcher")
