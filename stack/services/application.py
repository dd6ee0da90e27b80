"""Plattr's own processes, the worker and the watcher, which run beside the backends they use."""

import os
import sys

from stack.endpoints import Endpoints, environment
from stack.processes import Command
from stack.services.base import Service, Site, answers

APPS = ("worker", "watcher")

# Two arenas: otherwise glibc gives each thread of Temporal and boto3 its own, and no arena ever shrinks.
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}


class Application(Service):
    """`python -m worker` or `python -m watcher`, with the platform's settings in its environment."""

    # The worker gives its running activities 25 s to end.
    stop_grace_seconds = 30

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site)
        self.app = name

    @property
    def address(self) -> str:
        """The address of its metrics and health."""
        return self.site.url(f"{self.app}-metrics")

    def prepare(self) -> None:
        """Do nothing, because the process keeps no files."""

    def command(self) -> Command:
        """Run the module with this interpreter. Of the caller's environment it gets OTEL_*, but no settings."""
        passed = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
        return Command(
            arguments=(sys.executable, "-m", self.app),
            environment=ALLOCATOR | passed | environment(Endpoints.of(self.site), self.app),
            folder=self.site.folders.state,
        )

    def is_healthy(self) -> bool:
        """Tell whether its readiness probe succeeds."""
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
