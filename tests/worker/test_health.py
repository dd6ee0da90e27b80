"""The probes' answers in every state of the worker."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest
from temporalio.worker import Worker

from clients import temporal_probe
from clients.temporal import connect_temporal
from clients.temporal_probe import TemporalProbe
from worker.health import WorkerHealth


class Polling:
    """Stands for the SDK's worker, of which only this is asked."""

    is_running = True


async def ended() -> None:
    """A worker that has ended."""


@pytest.fixture
async def serving() -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(asyncio.sleep(3600))
    yield task
    task.cancel()


@pytest.fixture
async def probe() -> AsyncIterator[TemporalProbe]:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = await connect_temporal(environment={"TEMPORAL_ADDRESS": f"127.0.0.1:{nobody.getsockname()[1]}"})
        yield TemporalProbe(client)


def test_before_the_connection_the_process_is_alive_and_not_ready() -> None:
    health_checks = WorkerHealth()

    assert (health_checks.live(), health_checks.ready()) == (None, "connecting to temporal")


async def test_a_worker_that_has_ended_is_not_alive(probe: TemporalProbe) -> None:
    health_checks, task = WorkerHealth(), asyncio.create_task(ended())
    health_checks.serves(cast("Worker", Polling()), task, probe)
    await task

    assert health_checks.live() == "the worker has ended"


async def test_a_worker_that_does_not_poll_is_not_ready(
    probe: TemporalProbe, serving: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Polling, "is_running", False)
    health_checks = WorkerHealth()
    health_checks.serves(cast("Worker", Polling()), serving, probe)

    assert (health_checks.live(), health_checks.ready()) == (None, "the worker does not poll")


async def test_readiness_follows_temporals_answers(
    probe: TemporalProbe, serving: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    health_checks = WorkerHealth()
    health_checks.serves(cast("Worker", Polling()), serving, probe)

    before = health_checks.ready()
    probe.heard()
    heard = health_checks.ready()
    monkeypatch.setattr(temporal_probe, "SILENCE_SECONDS", -1)
    later = health_checks.ready()

    assert (before, heard, later) == ("temporal has not answered lately", None, "temporal has not answered lately")
    assert health_checks.live() is None


async def test_a_temporal_that_is_away_counts_as_silent(probe: TemporalProbe, caplog: pytest.LogCaptureFixture) -> None:
    probing = asyncio.create_task(probe.run())
    async with asyncio.timeout(15):
        while not caplog.records:
            await asyncio.sleep(0.05)

    assert probe.silence() == "temporal has not answered lately"
    assert not probing.done()
    probing.cancel()


async def test_a_stopping_worker_is_alive_and_not_ready(probe: TemporalProbe, serving: asyncio.Task[None]) -> None:
    health_checks = WorkerHealth()
    health_checks.serves(cast("Worker", Polling()), serving, probe)
    probe.heard()

    health_checks.is_stopping = True

    assert (health_checks.live(), health_checks.ready()) == (None, "stopping")
