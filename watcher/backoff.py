"""How long to pause after failures in a row."""

import random

# client-go's reflector: 0.8 s doubling to 30 s.
# https://github.com/kubernetes/client-go/blob/master/tools/cache/reflector.go
FIRST_PAUSE_SECONDS = 0.8
LONGEST_PAUSE_SECONDS = 30.0


def pause_seconds(failures: int) -> float:
    """Return the pause after this many failures in a row, at least 1; jittered, so that replicas part."""
    # 10: beyond it the bound has long been reached, and the power would only grow.
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret
