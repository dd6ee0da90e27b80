"""A queue that serves namespaces in turn, so that a namespace with hundreds of objects does not delay another one."""

import asyncio
from collections import deque

from plattr.objects import ObjectReference


class FairQueue(asyncio.Queue[ObjectReference]):
    """Serve the namespaces in turn. Within a namespace the order is first come, first served."""

    # asyncio.Queue lets subclasses override these three methods, and tests `_queue` for emptiness.
    # https://github.com/python/cpython/blob/main/Lib/asyncio/queues.py

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio.Queue calls it so
        # One line for each waiting namespace. No line is empty, and the first one is served next.
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
