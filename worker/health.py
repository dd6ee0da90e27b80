"""What the probes are told: whether the process can go on, and whether it does its work."""

import asyncio

from temporalio.worker import Worker

from clients.temporal_probe import TemporalProbe


class WorkerHealth:
    """Fed by the process; the probes' answers come from the event loop itself, so a loop that hangs gives none."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.waits_for = "temporal"
        """What the process has to reach before it may take work."""
        self._worker: Worker | None = None
        self._serving: asyncio.Task[None] | None = None
        self._probe: TemporalProbe | None = None

    def serves(self, worker: Worker, serving: asyncio.Task[None], probe: TemporalProbe) -> None:
        """Take what to watch, once there is a connection."""
        self._worker, self._serving, self._probe = worker, serving, probe

    def live(self) -> str | None:
        """Return why the process should be restarted; None while it serves, or waits for Temporal to come back."""
        if self._serving is not None and self._serving.done() and not self.is_stopping:
            return "the worker has ended"
        return None

    def ready(self) -> str | None:
        """Return why no work is taken; None while it is. A backend that is away fails steps, not the worker."""
        if self.is_stopping:
            return "stopping"
        if self._worker is None or self._probe is None:
            return f"connecting to {self.waits_for}"
        if not self._worker.is_running:
            return "the worker does not poll"
        return self._probe.silence()
