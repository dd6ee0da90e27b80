"""The guard around every attempt: the seed's delays, the fence, and words without secrets."""

import asyncio
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities import interceptor
from activities.interceptor import AttemptGuard, as_failure, problem_of, retry_delay
from clients import fence
from plattr.errors import (
    BackendUnavailable,
    FencedOff,
    InvalidSpec,
    OwnedElsewhere,
    ProviderCredentialsMissing,
    RolloutFailed,
    Superseded,
)
from plattr.retries import ON_ITS_WAY_SECONDS
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


class Server:
    """Stands for Temporal's server: whether it answers a beat, and what."""

    def __init__(self) -> None:
        self.asked = 0
        self.refusal: RPCStatusCode | None = None
        self.hangs = False

    async def ask(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(60)
        if self.refusal is not None:
            raise RPCError("no", self.refusal, b"")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "FENCE_SECONDS", 0.3)
    monkeypatch.setattr(interceptor, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(interceptor, "ANSWER_SECONDS", 0.1)


async def run(
    work: Any,
    server: Server,
    *,
    age: timedelta = timedelta(0),
    at_most: timedelta = timedelta(seconds=60),
    beats: list[Any] | None = None,
) -> Any:
    """Run an attempt under the guard, as one that the server started so long ago."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, started_time=datetime.now(UTC) - age, start_to_close_timeout=at_most)
    if beats is not None:
        environment.on_heartbeat = lambda *details: beats.append(details)

    async def guarded() -> Any:
        request = ExecuteActivityInput(fn=work, args=[], executor=None, headers={})
        guard = AttemptGuard(server.ask).intercept_activity(Attempt(work))
        return await guard.execute_activity(request)

    return await environment.run(guarded)


async def test_a_frozen_attempt_writes_no_more(server: Server, quick: None) -> None:
    async def frozen() -> None:
        fence.ensure_live()
        # Blocks the loop as SIGSTOP would: no beat is made meanwhile, and the first one after it comes too late.
        time.sleep(0.5)  # noqa: ASYNC251  on purpose
        await asyncio.sleep(0.1)
        fence.ensure_live()

    with pytest.raises(ApplicationError) as caught:
        await run(frozen, server)

    assert caught.value.type == "FencedOff"


async def test_a_long_attempt_that_beats_may_write(server: Server, quick: None) -> None:
    beats: list[Any] = []

    async def long() -> str:
        await asyncio.sleep(0.8)
        fence.ensure_live()
        return "written"

    assert await run(long, server, beats=beats) == "written"
    assert len(beats) > 5
    assert server.asked > 5


@pytest.mark.parametrize("way", ["refused", "silent"])
async def test_an_attempt_whose_beats_nobody_takes_stops_writing(server: Server, quick: None, way: str) -> None:
    async def cut_off() -> None:
        fence.ensure_live()
        server.hangs = way == "silent"
        server.refusal = RPCStatusCode.UNAVAILABLE if way == "refused" else None
        # The loop runs on and beats all the while.
        await asyncio.sleep(0.8)
        fence.ensure_live()

    with pytest.raises(ApplicationError) as caught:
        await run(cut_off, server)

    assert caught.value.type == "FencedOff"


async def test_an_attempt_that_the_server_has_given_up_stops_writing_at_once(server: Server, quick: None) -> None:
    async def given_up() -> None:
        server.refusal = RPCStatusCode.NOT_FOUND
        await asyncio.sleep(0.15)
        fence.ensure_live()

    with pytest.raises(ApplicationError) as caught:
        await run(given_up, server)

    assert caught.value.type == "FencedOff"


async def test_a_pause_of_the_server_shorter_than_the_fence_ends_nothing(server: Server, quick: None) -> None:
    async def lucky() -> str:
        server.refusal = RPCStatusCode.UNAVAILABLE
        await asyncio.sleep(0.15)
        server.refusal = None
        await asyncio.sleep(0.4)
        fence.ensure_live()
        return "written"

    assert await run(lucky, server) == "written"


async def test_no_attempt_writes_when_its_time_is_nearly_over(server: Server, quick: None) -> None:
    async def slow() -> None:
        fence.ensure_live()
        await asyncio.sleep(0.4)
        fence.ensure_live()

    at_most = timedelta(seconds=ON_ITS_WAY_SECONDS + 0.2)
    with pytest.raises(ApplicationError) as caught:
        await run(slow, server, at_most=at_most)

    assert caught.value.type == "FencedOff"


@pytest.mark.parametrize("age", [20, -20], ids=["old", "from-the-future"])
async def test_an_attempt_whose_age_is_in_doubt_asks_before_it_begins(server: Server, age: int) -> None:
    async def write() -> str:
        fence.ensure_live()
        return "written"

    assert await run(write, server, age=timedelta(seconds=age)) == "written"
    assert server.asked == 1


async def test_an_attempt_that_was_given_up_before_it_began_does_nothing(server: Server) -> None:
    server.refusal = RPCStatusCode.NOT_FOUND
    begun = []

    async def begin() -> None:
        begun.append(1)

    with pytest.raises(ApplicationError) as caught:
        await run(begin, server, age=timedelta(seconds=20))

    assert caught.value.type == "FencedOff"
    assert begun == []


async def test_a_fresh_attempt_begins_without_asking(server: Server) -> None:
    async def write() -> None:
        fence.ensure_live()

    await run(write, server)

    assert server.asked == 0


async def test_the_only_detail_of_a_failure_is_a_problem(server: Server) -> None:
    async def away() -> None:
        activity.logger.debug("about to fail")
        raise BackendUnavailable("cannot reach PostgreSQL at db:5432")

    with pytest.raises(ApplicationError) as caught:
        await run(away, server)

    (detail,) = caught.value.details
    assert Problem.model_validate(detail).message == "cannot reach PostgreSQL at db:5432"
    assert caught.value.next_retry_delay is not None
    assert not caught.value.non_retryable
