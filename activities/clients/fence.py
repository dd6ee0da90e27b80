"""The fence: no write after the deadline of the attempt that asked for it.

A worker that stood still (a stopped machine, a long pause) may wake after Temporal gave its attempt to another
worker. Every client asks here before each write, so the late one stops instead of undoing the newer one's work.
"""

import time
from contextvars import ContextVar

from plattr.errors import FencedOff

# By time.monotonic(); None: no attempt is running, as in the CLI and in tests.
deadline: ContextVar[float | None] = ContextVar("plattr_fence_deadline", default=None)


def ensure_live() -> None:
    """Return while the running attempt may write.

    Raises:
        FencedOff: its deadline has passed; nothing was sent.
    """
    limit = deadline.get()
    if limit is not None and time.monotonic() >= limit:
        raise FencedOff("cannot write: this attempt has outlived its deadline, and another worker may act already")
