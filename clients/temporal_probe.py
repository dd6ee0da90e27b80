"""Ask Temporal regularly whether it is up, for the readiness of worker and watcher."""

import asyncio
import logging
import time

from temporalio.client import Client
from temporalio.service import RPCError

from clients.temporal import RPC_TIMEOUT

logger = logging.getLogger(__name__)

# The interval of the health checks. Three missed answers make a process unready.
PROBE_SECONDS = 10.0
SILENCE_SECONDS = 35.0


class TemporalProbe:
    """Records when Temporal last answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answered_at: float | None = None

    def heard(self) -> None:
        """Record an answer from Temporal; other callers report the answers to their own calls here."""
        self._answered_at = time.monotonic()

    def silence(self) -> str | None:
        """Return why a process that needs Temporal is not ready; None when it answered within 35 s."""
        if self._answered_at is None or time.monotonic() - self._answered_at > SILENCE_SECONDS:
            return "temporal has not answered lately"
        return None

    async def run(self) -> None:
        """Ask Temporal at the interval, until the task is cancelled."""
        while True:
            try:
                if await self._client.service_client.check_health(timeout=RPC_TIMEOUT):
                    self.heard()
            except (RPCError, RuntimeError) as error:
                logger.warning("temporal does not answer", extra={"cause": " ".join(str(error).split())})
            await asyncio.sleep(PROBE_SECONDS)
