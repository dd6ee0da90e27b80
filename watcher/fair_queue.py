"""A queue that takes turns between namespaces: who applies hundreds of objects does not stand before another's one."""

import asyncio
from collections import deque

from plattr.objects import ObjectReference


class FairQueue(asyncio.Queue[ObjectReference]):
    """Within a namespace first come, first served."""

    # asyncio.Queue has its subclasses override these three, and asks `_queue` whether it is empty.
    # https://github.com/python/cpython/blob/main/Lib/asyncio/queues.py

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio.Queue calls it so
        # Of each namespace that waits its line, none of them empty; the next one's stands first.
        self._queue: dict[str, deque[ObjectReference]] = {}

    def _put(self, item: ObjectReference) -> None:
        self._queue.setdefault(item.namespace, deque()).append(item)

    def _get(self) -> ObjectReference:
        namespace = next(iter(self._queue))
        line = self._queue.pop(namespace)
        item = line.popleft()
        if line:
            self._queue[namespace] = line
        return item
