"""The fence: no write by an attempt that the server may have given up already.

A worker that stood still (a stopped machine, a long pause) may wake after Temporal gave its attempt to another
worker. Every client asks here before each write, so the late one stops instead of undoing the newer one's work.
"""

import math
import time
from contextvars import ContextVar

from plattr.errors import FencedOff
from plattr.retries import ON_ITS_WAY_SECONDS


class Lease:
    """The right of one attempt to write, until a moment that each heartbeat moves on.

    It is one object shared by the attempt and whoever beats for it; all times are time.monotonic's, which goes
    on while the process is stopped.
    """

    def __init__(self, until: float) -> None:
        self._until = until

    @property
    def until(self) -> float:
        """Return when the right ends, by time.monotonic()."""
        return self._until

    @property
    def is_live(self) -> bool:
        """Tell whether the attempt may write now."""
        return time.monotonic() < self._until

    def renew(self, until: float) -> bool:
        """Move the end on; False, and nothing moves, when it has passed: a lost lease never comes back."""
        if not self.is_live:
            return False
        self._until = until
        return True

    def revoke(self) -> None:
        """End the right to write at once."""
        self._until = float("-inf")


# None: no attempt is running, as in the CLI and in tests of a single step.
lease: ContextVar[Lease | None] = ContextVar("plattr_attempt_lease", default=None)


def ensure_live() -> None:
    """Return while the running attempt may write.

    Raises:
        FencedOff: its lease has run out; nothing was sent.
    """
    held = lease.get()
    if held is not None and not held.is_live:
        raise FencedOff("cannot write: this attempt has outlived its lease, and another worker may act already")


def seconds_on_the_way() -> float:
    """Return how long a write that is allowed now may be under way; without an attempt, for ever.

    A process can freeze between asking `ensure_live` and sending, most of all while it waits for a connection. A
    client that cannot ask at the very moment of sending gives up after this time instead: the event loop's timers
    go by the same clock as the fence, and fire before anything else is done when the process wakes.
    """
    held = lease.get()
    return math.inf if held is None else max(held.until - time.monotonic(), 0) + ON_ITS_WAY_SECONDS
