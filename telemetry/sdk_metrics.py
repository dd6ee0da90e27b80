"""Temporal's own metrics: runs by type and result, workflow-task failures, polls, requests, slots.

The SDK's core serves its metrics only over HTTP, so it listens on the loopback, and /metrics appends its answer.
The core's alternative is a buffer of single updates. Python would then repeat the sums that the core has made already.
"""

import socket

import aiohttp
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from plattr.errors import MissingSetting

# Another process may take the free port before the core does. Three times in a row is no coincidence.
ATTEMPTS = 3
# 5 s: the answer takes milliseconds, and Prometheus times out after 10 s.
READ_SECONDS = 5.0


class SdkMetrics:
    """A runtime for the Temporal client, and the runtime's metrics."""

    def __init__(self) -> None:
        """Start the runtime; start only one in a process, because it has threads of its own.

        Raises:
            MissingSetting: the loopback has no free port.
        """
        self.runtime, self._url = _start()

    async def read(self) -> bytes:
        """Return the metrics in Prometheus's text format 0.0.4."""
        timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(self._url, raise_for_status=True) as answer:
            return await answer.read()


def _start() -> tuple[Runtime, str]:
    cause = ""
    for _ in range(ATTEMPTS):
        address = f"127.0.0.1:{_free_port()}"
        # Prometheus's naming rules: durations in seconds, and the suffix _total for counters.
        metrics = PrometheusConfig(
            bind_address=address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
        )
        try:
            runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics, attach_service_name=False))
        except ValueError as error:
            cause = str(error)
        else:
            return runtime, f"http://{address}/metrics"
    raise MissingSetting(f"cannot start: Temporal's metrics find no free port on the loopback: {cause}")


def _free_port() -> int:
    # Given port 0, the core does not tell which port it got. So find a free port first, and name it to the core.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
