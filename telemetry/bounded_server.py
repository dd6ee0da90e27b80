"""Limit a small HTTP server: how long a connection may last, and how many may be open.

aiohttp waits without a limit for a request's headers, and keeps as many connections as the process may open files.
A client that reaches the port could hold thousands of connections open, each with a byte a minute, until probes and
scrapers get none.
"""

import asyncio
from collections.abc import Callable
from typing import Any

# 10 s for a whole connection: the header, the answer, and the time in which the client reads the answer. Prometheus
# times out after 10 s, too, and a probe sooner.
CONNECTION_SECONDS = 10.0
# 32: probes and scrapers connect one at a time, and each only for milliseconds.
MOST_CONNECTIONS = 32


class OpenConnections:
    """The open connections, and the factory for the protocol of each new connection."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        *,
        seconds: float = CONNECTION_SECONDS,
        most: int = MOST_CONNECTIONS,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._most = most
        self._open: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return _Bounded(self._make(), self)

    def begin(self, transport: asyncio.Transport) -> None:
        """Add a connection; at the limit, end the oldest: a real request is answered long before it is the oldest."""
        if len(self._open) >= self._most:
            self._end(next(iter(self._open)))
        loop = asyncio.get_running_loop()
        self._open[transport] = loop.call_later(self._seconds, self._end, transport)

    def lose(self, transport: asyncio.Transport) -> None:
        """Remove a closed connection."""
        if (timer := self._open.pop(transport, None)) is not None:
            timer.cancel()

    def _end(self, transport: asyncio.Transport) -> None:
        self.lose(transport)
        # Abort, not close: a close would wait until the client has read the rest of the answer.
        transport.abort()


class _Bounded(asyncio.Protocol):
    """Passes every event on to the protocol that serves the connection."""

    def __init__(self, inner: asyncio.Protocol, connections: OpenConnections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.begin(self._transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.lose(self._transport)
        self._inner.connection_lost(exc)
