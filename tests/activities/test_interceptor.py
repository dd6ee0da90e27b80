"""The guard around every attempt: the seed's delays, the fence, and words without secrets."""

import asyncio
import statistics
import time
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities import interceptor
from activities.clients import fence
from activities.interceptor import AttemptGuard, as_failure, problem_of, retry_delay
from plattr.errors import (
    BackendUnavailable,
    FencedOff,
    InvalidSpec,
    OwnedElsewhere,
    ProviderCredentialsMissing,
    RolloutFailed,
    Superseded,
)
from plattr.steps import Problem, Remedy


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 0.5, 1.5), (2, 1, 3), (3, 2, 6)])
def test_delays_are_uniform_within_the_seeds_table(attempt: int, low: float, high: float) -> None:
    delays = [retry_delay(attempt).total_seconds() for _ in range(1000)]

    assert low <= min(delays) < low * 1.1
    assert high * 0.95 < max(delays) <= high
    # Of 1,000 uniform values the mean lies within 5 % of the middle, but for one run in some ten billion.
    assert statistics.mean(delays) == pytest.approx((low + high) / 2, rel=0.06)


def test_no_delay_exceeds_thirty_seconds() -> None:
    assert max(retry_delay(10).total_seconds() for _ in range(1000)) == 30


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (BackendUnavailable("away"), "BackendUnavailable", Remedy.RETRY),
        (FencedOff("late"), "FencedOff", Remedy.RETRY),
        (RolloutFailed("bad image", cause="ImagePullBackOff"), "ImagePullBackOff", Remedy.RETRY),
        (ProviderCredentialsMissing("google"), "ProviderCredentialsMissing", Remedy.WAIT),
        (InvalidSpec("spec.domain", "bad"), "InvalidSpec", Remedy.CHANGE),
        (OwnedElsewhere("foreign"), "OwnedElsewhere", Remedy.CHANGE),
        (Superseded("newer"), "Superseded", Remedy.REREAD),
        (KeyError("PASSWORD"), "Unexpected", Remedy.RETRY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_error_says_what_mends_it(error: Exception, reason: str, remedy: Remedy) -> None:
    problem = problem_of(error)

    assert (problem.reason, problem.remedy) == (reason, remedy)


async def test_a_foreign_error_keeps_only_its_class_and_place() -> None:
    async def fail() -> ApplicationError:
        try:
            raise RuntimeError("ALTER ROLE x PASSWORD 'c4n4ry'")
        except RuntimeError as error:
            return as_failure(error, attempt=1)

    failure = await ActivityEnvironment().run(fail)

    assert "c4n4ry" not in str(failure)
    assert "c4n4ry" not in str(failure.details)
    assert "RuntimeError in fail" in str(failure)
    assert failure.__cause__ is None


class Attempt(ActivityInboundInterceptor):
    """Stands for the activity itself."""

    def __init__(self, work: Any) -> None:
        self._work = work

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        return await self._work()


async def guarded(work: Any) -> Any:
    request = ExecuteActivityInput(fn=work, args=[], executor=None, headers={})
    return await AttemptGuard().intercept_activity(Attempt(work)).execute_activity(request)


async def test_a_frozen_attempt_writes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "FENCE_SECONDS", 0.2)
    monkeypatch.setattr(interceptor, "BEAT_SECONDS", 0.05)

    async def frozen() -> None:
        fence.ensure_live()
        # Blocks the loop as SIGSTOP would: no beat is made meanwhile, and the first one after it comes too late.
        time.sleep(0.4)  # noqa: ASYNC251  on purpose
        await asyncio.sleep(0.1)
        fence.ensure_live()

    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(guarded, frozen)

    assert caught.value.type == "FencedOff"


async def test_a_long_attempt_that_beats_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "FENCE_SECONDS", 0.3)
    monkeypatch.setattr(interceptor, "BEAT_SECONDS", 0.05)
    beats: list[tuple[Any, ...]] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)

    async def long() -> str:
        await asyncio.sleep(0.8)
        fence.ensure_live()
        return "written"

    assert await environment.run(guarded, long) == "written"
    assert len(beats) > 5


async def test_the_only_detail_of_a_failure_is_a_problem() -> None:
    async def away() -> None:
        activity.logger.debug("about to fail")
        raise BackendUnavailable("cannot reach PostgreSQL at db:5432")

    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(guarded, away)

    (detail,) = caught.value.details
    assert Problem.model_validate(detail).message == "cannot reach PostgreSQL at db:5432"
    assert caught.value.next_retry_delay is not None
    assert not caught.value.non_retryable
