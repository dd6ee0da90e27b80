"""The Temporal dev server with its Web UI, on a database file that survives a restart."""

from stack.processes import Command
from stack.services.base import Service, answers

SEARCH_ATTRIBUTES = ("PlattrNamespace", "PlattrName", "PlattrEnvironment", "PlattrPhase")
DYNAMIC_CONFIG = (
    "frontend.enableServerVersionCheck=false",
    # By default the server reads a shard's queues 20 times a second, so each step of an idle workflow waits up to 50
    # ms.
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    # Serves the namespaces of the objects in turn; see clients/temporal.py.
    "matching.enableFairness=true",
    # Fairness works within one partition. The default of four partitions is for thousands of tasks a second.
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    # Otherwise a queue older than 5 s is also served to polls for runs that a worker has begun. The worker would then
    # begin all waiting runs within a few seconds, despite the limit of worker/run_limiter.py.
    "matching.priorityBacklogForwarding=false",
)


class Temporal(Service):
    """Temporal, with gRPC on one port and the UI on another."""

    name = "temporal"
    ports = ("temporal", "temporal-ui")

    @property
    def address(self) -> str:
        """The gRPC address, which has no scheme."""
        return f"127.0.0.1:{self.site.port('temporal')}"

    def command(self) -> Command:
        """Start the dev server. `synchronous=0` makes the file as fast as memory, and the data survives kill -9."""
        arguments = [
            self.site.tool("temporal"),
            *("server", "start-dev", "--ip", "127.0.0.1", "--ui-disable-news-fetch", "--log-level", "warn"),
            *("--port", str(self.site.port("temporal")), "--ui-port", str(self.site.port("temporal-ui"))),
            *("--db-filename", str(self.folder / "temporal.db"), "--sqlite-pragma", "synchronous=0"),
        ]
        for attribute in SEARCH_ATTRIBUTES:
            arguments += ["--search-attribute", f"{attribute}=Keyword"]
        for setting in DYNAMIC_CONFIG:
            arguments += ["--dynamic-config-value", setting]
        # HOME: otherwise the CLI reads the configuration of its user, which must not affect the server.
        return Command(arguments=tuple(arguments), environment={"HOME": str(self.folder)}, folder=self.folder)

    def is_healthy(self) -> bool:
        """Tell whether the UI answers. It asks the frontend, so one answer proves that both work."""
        return answers(f"{self.site.url('temporal-ui')}/api/v1/namespaces/default")
