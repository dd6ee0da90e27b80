"""The one rule of growing pauses, and the numbers that have to fit together."""

from datetime import timedelta

import pytest

from plattr import retries
from plattr.retries import Backoff


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 30), (10_000, 30)])
def test_a_pause_doubles_up_to_its_bound(failures: int, seconds: float) -> None:
    assert Backoff(first=1, longest=30).seconds(failures) == seconds


@pytest.mark.parametrize(("share", "seconds"), [(0.5, 15), (1.5, 30)])
def test_jitter_never_passes_the_bound(share: float, seconds: float) -> None:
    assert Backoff(first=1, longest=30).seconds(9, share=share) == seconds


def test_a_write_that_was_allowed_is_over_before_another_attempt_may_begin() -> None:
    allowed = timedelta(seconds=retries.FENCE_SECONDS + retries.ON_ITS_WAY_SECONDS)

    assert allowed <= retries.HEARTBEAT_TIMEOUT < retries.ATTEMPT
    assert retries.BEAT_SECONDS * 5 <= retries.FENCE_SECONDS
