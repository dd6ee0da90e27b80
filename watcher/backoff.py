"""How long to pause after failures in a row."""

import random

from plattr.retries import WATCH, WATCH_JITTER


def pause_seconds(failures: int) -> float:
    """Return the pause after this many failures in a row, at least 1; jittered, so that replicas part."""
    return WATCH.seconds(failures, share=random.uniform(*WATCH_JITTER))  # noqa: S311  jitter, not a secret
