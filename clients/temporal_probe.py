"""Whether Temporal is there: asked regularly, for the readiness of worker and watcher."""

import asyncio
import logging
import time

from temporalio.client import Client
from temporalio.service import RPCError

from clients.temporal import RPC_TIMEOUT

logger = logging.getLogger(__name__)

# Asked this often; three missed answers make a process unready.
PROBE_SECONDS = 10.0
SILENCE_SECONDS = 35.0


class TemporalProbe:
    """Remembers when Temporal answered last."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answered_at: float | None = None

    def heard(self) -> None:
        """Take note of an answer that came to somebody else."""
        self._answered_at = time.monotonic()

    def silence(self) -> str | None:
        """Return why a process that needs Temporal is not ready; None when it answered within 35 s."""
        if self._answered_at is None or time.monotonic() - self._answered_at > SILENCE_SECONDS:
            return "temporal has not answered lately"
        return None

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                if await self._client.service_client.check_health(timeout=RPC_TIMEOUT):
                    self.heard()
            except (RPCError, RuntimeError) as error:
                logger.warning("temporal does not answer", extra={"cause": " ".join(str(error).split())})
            await asyncio.sleep(PROBE_SECONDS)
