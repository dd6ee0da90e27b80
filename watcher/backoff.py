"""How long to pause after consecutive failures."""

import random

from plattr.retries import WATCH, WATCH_JITTER


def pause_seconds(failures: int) -> float:
    """Return the pause after this many consecutive failures, at least 1. Jitter keeps replicas apart."""
    return WATCH.seconds(failures, share=random.uniform(*WATCH_JITTER))  # noqa: S311  jitter, not a secret
