"""Temporal's own metrics: runs by type and result, workflow-task failures, polls, requests, slots.

The SDK's core serves them over HTTP only, so it does on the loopback, and /metrics appends what it says there.
(Its other way, a buffer of single updates, would have Python add up what the core has added up already.)
"""

import socket

import aiohttp
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from plattr.errors import MissingSetting

# Somebody else may take the free port before the core does; three times in a row is no chance any more.
ATTEMPTS = 3
# 5 s: the answer takes milliseconds, and Prometheus gives up after ten seconds.
READ_SECONDS = 5.0


class SdkMetrics:
    """A runtime for the client of Temporal, and what it counted."""

    def __init__(self) -> None:
        """Start the runtime; one a process, for it has threads of its own.

        Raises:
            MissingSetting: the loopback has no free port.
        """
        self.runtime, self._url = _start()

    async def read(self) -> bytes:
        """Return the metrics in Prometheus' text format, 0.0.4."""
        timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(self._url, raise_for_status=True) as answer:
            return await answer.read()


def _start() -> tuple[Runtime, str]:
    cause = ""
    for _ in range(ATTEMPTS):
        address = f"127.0.0.1:{_free_port()}"
        # The names that Prometheus wants: seconds, and _total for counters.
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
    # The core does not say which port it got when it is asked for any, so it is asked for one.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
