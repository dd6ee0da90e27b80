"""The HTTP port of a process: /metrics, /healthz and /readyz."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from plattr.errors import MissingSetting
from telemetry.bounded_server import OpenConnections

logger = logging.getLogger(__name__)

# Returns None if the check passes, else the reason as text.
Check = Callable[[], str | None]
# Returns additional metrics in the text format 0.0.4.
Read = Callable[[], Awaitable[bytes]]


class HealthServer:
    """Serves /metrics, /healthz (alive) and /readyz (able to work); the checks run at each request."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        live: Check,
        ready: Check,
        *,
        more: Read | None = None,
    ) -> None:
        """Use the checks, the metrics of `registry`, and the metrics that `more` returns."""
        self._host = host
        self._port = port
        self._registry = registry
        self._live = live
        self._ready = ready
        self._more = more
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port that the server listens on; the system chooses a port if the given one is 0."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Start listening.

        Raises:
            MissingSetting: the server cannot listen on the port.
        """
        application = web.Application()
        application.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", _endpoint(self._live)),
                web.get("/readyz", _endpoint(self._ready)),
            ]
        )
        # shutdown_timeout 2 s: a scrape that hangs must not delay the end of the process. keepalive_timeout 0: no
        # connection waits for a second request.
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=2, keepalive_timeout=0)
        await self._runner.setup()
        if self._runner.server is None:
            raise RuntimeError("a runner that is set up has a server")
        connections = OpenConnections(self._runner.server)
        try:
            self._server = await asyncio.get_running_loop().create_server(connections, self._host, self._port)
        except OSError as error:
            await self.stop()
            raise MissingSetting(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}; set METRICS_PORT to a free port"
            ) from error
        logger.info("health server started", extra={"host": self._host, "port": self.port})

    async def stop(self) -> None:
        """Stop listening; do nothing if the server never started."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        # The additional metrics come in the plain text format, so the registry's metrics use this format, too. Every
        # scraper accepts it.
        accepted = "" if self._more else request.headers.get("Accept", "")
        encode, content_type = choose_encoder(accepted)
        body = encode(self._registry)
        if self._more is not None:
            body += await self._more()
        return web.Response(body=body, headers={"Content-Type": content_type})


def _endpoint(check: Check) -> Callable[[web.Request], Any]:
    async def answer(_: web.Request) -> web.Response:
        reason = check()
        return web.Response(status=200 if reason is None else 503, text=f"{reason or 'ok'}\n")

    return answer
