"""What counts as a run under way, and who is let in when."""

import asyncio
import logging
from dataclasses import dataclass

import pytest
from temporalio.worker import SlotPermit

from worker import run_limiter
from worker.run_limiter import InFlightRuns, WorkflowTaskSlotSupplier


async def waits(in_flight: InFlightRuns) -> bool:
    """Tell whether a new run has to wait; one that does not has its place from now on."""
    try:
        async with asyncio.timeout(0.05):
            await in_flight.take_on()
    except TimeoutError:
        return True
    return False


async def test_so_many_runs_are_taken_on_and_the_next_one_waits() -> None:
    in_flight = InFlightRuns(2)

    assert [await waits(in_flight) for _ in range(3)] == [False, False, True]


async def test_a_run_counts_from_its_first_step_to_its_last() -> None:
    in_flight = InFlightRuns(1)
    await in_flight.take_on()
    in_flight.begin_step("run", "claim_object")
    in_flight.taken_on()
    in_flight.end_step("run", goes_on=True)

    assert await waits(in_flight)

    in_flight.begin_step("run", "write_status")
    in_flight.end_step("run", goes_on=False)

    assert not await waits(in_flight)


async def test_who_waits_is_let_in_when_a_run_ends() -> None:
    in_flight = InFlightRuns(1)
    in_flight.begin_step("run", "write_status")
    waiting = asyncio.create_task(in_flight.take_on())
    await asyncio.sleep(0.01)
    assert not waiting.done()

    # As the SDK does: from a thread of its own.
    await asyncio.to_thread(in_flight.end_step, "run", goes_on=False)

    await asyncio.wait_for(waiting, 1)


@pytest.mark.parametrize(
    ("name", "limit"), [("reconcile_database", "WORKS_SECONDS"), ("await_rollout", "ROLLOUT_SECONDS")]
)
async def test_a_step_that_hangs_holds_nobody_up(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_limiter, limit, 0.1)
    in_flight = InFlightRuns(1)
    in_flight.begin_step("run", name)

    assert await waits(in_flight)
    await asyncio.wait_for(in_flight.take_on(), 1)


async def test_a_run_that_another_worker_took_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_limiter, "GOES_ON_SECONDS", 0.1)
    in_flight = InFlightRuns(1)
    in_flight.begin_step("run", "claim_object")
    in_flight.end_step("run", goes_on=True)

    assert await waits(in_flight)
    await asyncio.wait_for(in_flight.take_on(), 1)


@dataclass(frozen=True)
class Slot:
    """What the SDK tells of a slot's task."""

    is_sticky: bool
    workflow_type: str = "ProvisionApplication"


@dataclass(frozen=True)
class Poll:
    """A poll, and what became of it."""

    is_sticky: bool
    permit: SlotPermit | None = None
    slot_info: Slot | None = None


async def test_a_server_that_breaks_the_bound_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    slots = WorkflowTaskSlotSupplier(8, InFlightRuns(1))
    begun, new = [await slots.reserve_slot(Poll(is_sticky=sticky)) for sticky in (True, False)]  # type: ignore[arg-type]

    with caplog.at_level(logging.WARNING):
        # As it is to be: each poll brings what it asked for.
        slots.mark_slot_used(Poll(is_sticky=True, permit=begun, slot_info=Slot(is_sticky=True)))  # type: ignore[arg-type]
        slots.mark_slot_used(Poll(is_sticky=False, permit=new, slot_info=Slot(is_sticky=False)))  # type: ignore[arg-type]
        assert not caplog.records

        for _ in range(2):
            slots.mark_slot_used(Poll(is_sticky=True, permit=begun, slot_info=Slot(is_sticky=False)))  # type: ignore[arg-type]

    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "more runs begin than RUNS_AT_ONCE says"
    ]


def go_round(in_flight: InFlightRuns, run: str, *steps: str) -> None:
    for step in steps:
        in_flight.begin_step(run, step)
        in_flight.end_step(run, goes_on=True)


@pytest.mark.attack
@pytest.mark.parametrize(
    "first", [("claim_object",), ("read_lifetime", "claim_object")], ids=["application", "preview"]
)
async def test_a_run_that_begins_again_gives_its_place_back(first: tuple[str, ...]) -> None:
    in_flight = InFlightRuns(1)
    go_round(in_flight, "run", *first, "reconcile_database")
    waiting = asyncio.create_task(in_flight.take_on())
    await asyncio.sleep(0.01)
    assert not waiting.done()

    go_round(in_flight, "run", *first)

    await asyncio.wait_for(waiting, 1)


@pytest.mark.attack
async def test_however_many_begin_again_one_place_is_a_newcomers() -> None:
    in_flight = InFlightRuns(3)
    for number in range(20):
        go_round(in_flight, f"run-{number}", "claim_object", "claim_object")

    assert [await waits(in_flight) for _ in range(2)] == [False, True]


async def test_a_run_that_ends_its_second_round_is_forgotten() -> None:
    in_flight = InFlightRuns(1)
    for run in ("one", "two"):
        go_round(in_flight, run, "claim_object", "claim_object")
        in_flight.end_step(run, goes_on=False)

    go_round(in_flight, "one", "claim_object")
    assert await waits(in_flight)
