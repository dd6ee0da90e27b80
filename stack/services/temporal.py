"""The Temporal dev server with its Web UI, on a database file that outlives it."""

from stack.processes import Command
from stack.services.base import Service, answers

SEARCH_ATTRIBUTES = ("PlattrNamespace", "PlattrName", "PlattrEnvironment", "PlattrPhase")
DYNAMIC_CONFIG = (
    "frontend.enableServerVersionCheck=false",
    # By default a shard's queues are read 20 times a second: each step of a quiet workflow waits up to 50 ms.
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    # FairQueue between the namespaces of the objects; see clients/temporal.py.
    "matching.enableFairness=true",
    # FairQueue are taken within a partition; the default of four is for thousands of tasks a second.
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    # Else a queue that is older than 5 s is also served to the polls for runs that a worker has begun, and it begins
    # all that wait in a few seconds, whatever worker/run_limiter.py bounds.
    "matching.priorityBacklogForwarding=false",
)


class Temporal(Service):
    """Temporal: gRPC on one port, UI on another."""

    name = "temporal"
    ports = ("temporal", "temporal-ui")

    @property
    def address(self) -> str:
        """The gRPC address, which has no scheme."""
        return f"127.0.0.1:{self.site.port('temporal')}"

    def command(self) -> Command:
        """Start the dev server; `synchronous=0` makes the file as fast as memory and survives kill -9."""
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
        # HOME: the CLI reads its user's configuration, which is none of the server's business.
        return Command(arguments=tuple(arguments), environment={"HOME": str(self.folder)}, folder=self.folder)

    def is_healthy(self) -> bool:
        """The UI asks the frontend for this, so one answer vouches for both."""
        return answers(f"{self.site.url('temporal-ui')}/api/v1/namespaces/default")
