"""A line to Temporal that can be cut for good: the server notices, and lets no poll of ours wait any longer."""

import asyncio

from tests.watcher.proxy import Proxy


class Line(Proxy):
    """A proxy whose cut both ends see; whoever dials again is hung up on."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        super().__init__(host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        self.blackhole()
        for writer in self._writers:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open.is_set():
            writer.close()
            return
        self._writers.add(writer)
        await super()._accept(reader, writer)
