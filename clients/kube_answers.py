"""Read an answer of the API server while it arrives: with a bounded size, or line by line."""

from collections.abc import AsyncIterator

import aiohttp


def abort(response: aiohttp.ClientResponse) -> None:
    """Drop the connection of an answer that is still arriving; an orderly end would wait for the rest."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def read(content: aiohttp.StreamReader, most: int | None) -> bytes | None:
    """Return the whole answer; None as soon as it is longer than `most`."""
    chunks, size = [], 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if most is not None and size > most:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield an answer's lines as they arrive; aiohttp's own line reader fails at a line longer than its buffer."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end])
            parts = []
        if rest:
            parts.append(rest)
    if parts:
        yield b"".join(parts)
