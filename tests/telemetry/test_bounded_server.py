"""The probes' port under slow and many connections: whoever asks properly is answered all the same."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from telemetry import health_server
from telemetry.bounded_server import MOST_CONNECTIONS, OpenConnections
from telemetry.health_server import HealthServer

pytestmark = pytest.mark.attack

SECONDS = 1.0


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HealthServer]:
    monkeypatch.setattr(health_server, "OpenConnections", lambda make: OpenConnections(make, seconds=SECONDS))
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), live=lambda: None, ready=lambda: None)
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def connection(server: HealthServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def is_answered(server: HealthServer) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{server.port}/healthz") as answer:
        return answer.status == 200


async def until_dropped(reader: asyncio.StreamReader) -> float:
    begun = time.monotonic()
    try:
        async with asyncio.timeout(10):
            await reader.read()
    except ConnectionResetError:
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nx",
    ],
    ids=["nothing", "half-a-header", "half-a-body"],
)
async def test_a_request_that_does_not_end_is_dropped(server: HealthServer, sent: bytes) -> None:
    async with connection(server) as (reader, writer):
        writer.write(sent)

        assert await until_dropped(reader) < 3 * SECONDS


async def test_a_header_that_comes_byte_by_byte_gains_no_time(server: HealthServer) -> None:
    async with connection(server) as (reader, writer):

        async def drip() -> None:
            writer.write(b"GET /healthz HTTP/1.1\r\nX: ")
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        took = await until_dropped(reader)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)

    assert took < 3 * SECONDS


async def test_a_hundred_idle_connections_keep_nobody_out(server: HealthServer) -> None:
    async with AsyncExitStack() as held:
        readers = [(await held.enter_async_context(connection(server)))[0] for _ in range(100)]

        assert await is_answered(server)
        # The oldest have gone for those that came after them.
        dropped = await asyncio.gather(*(until_dropped(reader) for reader in readers[: 100 - MOST_CONNECTIONS]))
        assert max(dropped) < SECONDS / 2


async def test_an_answer_ends_the_connection(server: HealthServer) -> None:
    async with connection(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")

        async with asyncio.timeout(SECONDS / 2):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
