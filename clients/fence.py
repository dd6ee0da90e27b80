"""The fence: it stops writes by an attempt that the Temporal server may have timed out already.

A worker that was frozen (a stopped machine, a long pause) may wake after Temporal has started the next attempt on
another worker. Every client asks the fence before each write. The late attempt therefore stops, and does not undo the
work of the newer attempt.
"""

import math
import time
from contextvars import ContextVar

from plattr.errors import FencedOff
from plattr.retries import ON_ITS_WAY_SECONDS


class Lease:
    """The right of one attempt to write, until a time that each heartbeat extends.

    The attempt and the task that sends its heartbeats share one Lease object. All times come from time.monotonic, which
    continues while the process is stopped.
    """

    def __init__(self, until: float) -> None:
        self._until = until

    @property
    def until(self) -> float:
        """Return when the right to write ends, by time.monotonic()."""
        return self._until

    @property
    def is_live(self) -> bool:
        """Tell whether the attempt may write now."""
        return time.monotonic() < self._until

    def renew(self, until: float) -> bool:
        """Extend the lease; False, without any change, if it has expired: an expired lease stays expired."""
        if not self.is_live:
            return False
        self._until = until
        return True

    def revoke(self) -> None:
        """End the right to write at once."""
        self._until = float("-inf")


# None: no attempt is running. This is so in the CLI and in tests of a single step.
lease: ContextVar[Lease | None] = ContextVar("plattr_attempt_lease", default=None)


def ensure_live() -> None:
    """Return if the running attempt may write.

    Raises:
        FencedOff: the attempt's lease has expired; nothing was sent.
    """
    held = lease.get()
    if held is not None and not held.is_live:
        raise FencedOff("cannot write: this attempt has outlived its lease, and another worker may act already")


def seconds_on_the_way() -> float:
    """Return how long a write that is allowed now may be in flight; without an attempt, there is no limit.

    A process can freeze between `ensure_live` and the sending, most of all while it waits for a connection. A client
    that cannot ask the fence at the moment of sending uses this time as its timeout. The event loop's timers use the
    same clock as the fence. When the process wakes, they fire before any other work.
    """
    held = lease.get()
    return math.inf if held is None else max(held.until - time.monotonic(), 0) + ON_ITS_WAY_SECONDS
