"""What the probes answer: whether the process can continue, and whether it does its work."""

import asyncio

from temporalio.worker import Worker

from clients.temporal_probe import TemporalProbe


class WorkerHealth:
    """The worker's health. The event loop itself answers the probes, so a loop that hangs answers none."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.waits_for = "temporal"
        """What the process must reach before it takes work."""
        self._worker: Worker | None = None
        self._serving: asyncio.Task[None] | None = None
        self._probe: TemporalProbe | None = None

    def serves(self, worker: Worker, serving: asyncio.Task[None], probe: TemporalProbe) -> None:
        """Set what to watch, once there is a connection."""
        self._worker, self._serving, self._probe = worker, serving, probe

    def live(self) -> str | None:
        """Return why the process should be restarted; None while it serves, or waits for Temporal to return."""
        if self._serving is not None and self._serving.done() and not self.is_stopping:
            return "the worker has ended"
        return None

    def ready(self) -> str | None:
        """Return why the worker takes no work; None while it does. Unavailable backends fail steps, not the worker."""
        if self.is_stopping:
            return "stopping"
        if self._worker is None or self._probe is None:
            return f"connecting to {self.waits_for}"
        if not self._worker.is_running:
            return "the worker does not poll"
        return self._probe.silence()
