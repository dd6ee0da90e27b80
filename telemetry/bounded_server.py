"""Bounds of a small HTTP server: how long a connection may last, and how many there may be.

aiohttp waits for ever for a request's headers, and keeps as many connections as there are files. Whoever reaches the
port could hold thousands open with a byte a minute each, until probes and scrapers get none.
"""

import asyncio
from collections.abc import Callable
from typing import Any

# 10 s for all of a connection: header, answer, and the reader's taking it. Prometheus gives up after as long, and a
# probe after less.
CONNECTION_SECONDS = 10.0
# 32: probes and scrapers come one at a time, and each for milliseconds.
MOST_CONNECTIONS = 32


class OpenConnections:
    """The connections that are open; makes the protocol of each new one."""

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
        """Take a connection; above the bound the oldest goes: a real request is answered long before it is that."""
        if len(self._open) >= self._most:
            self._end(next(iter(self._open)))
        loop = asyncio.get_running_loop()
        self._open[transport] = loop.call_later(self._seconds, self._end, transport)

    def lose(self, transport: asyncio.Transport) -> None:
        """Forget a connection that is closed."""
        if (timer := self._open.pop(transport, None)) is not None:
            timer.cancel()

    def _end(self, transport: asyncio.Transport) -> None:
        self.lose(transport)
        # Not closed: that would wait until the other side has taken what it has not read.
        transport.abort()


class _Bounded(asyncio.Protocol):
    """Hands everything on to the protocol that does the work."""

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
