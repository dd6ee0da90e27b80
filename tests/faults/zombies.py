"""A worker that stands still in the middle of an activity, and wakes when another has long taken over."""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.faults.lanes import Lane, open_lane
from tests.faults.matrix import writes_of
from tests.faults.mutants import Mutant
from tests.faults.scenarios import Actor, Item, Scenario
from tests.faults.timing import EARNEST, Timing
from tests.faults.worker import Entry, Fault

# What the frozen worker would do next shows within milliseconds of its waking; its beat within a second.
_AFTER_SECONDS = 4.0
# Two buckets are made at once. To freeze before the one is asked for can catch the other's request between the fence
# and the socket, where nothing holds it; see "What no fence can do" in docs/guarantees.md.
ONE_BUCKET = {"storage": {"enabled": True, "buckets": [{"name": "files"}]}}


@dataclass(frozen=True)
class Zombie:
    """Where a worker freezes, and what has happened to the object when it wakes."""

    scenario: Scenario
    activity: str
    write: int
    """It stands still before this write of its attempt."""
    meanwhile: Literal["finished", "removed", "made anew"]

    def __str__(self) -> str:
        return f"{self.activity} before write {self.write}, {self.meanwhile} meanwhile"


@dataclass(frozen=True)
class Evidence:
    """What a worker did after it woke."""

    zombie: Zombie
    writes: tuple[Entry, ...]
    """Its writes after the thaw."""
    ending: tuple[str, ...]
    """How its attempt ended after the thaw: `failed` is what the fence makes of it."""
    seconds_frozen: float
    item: Item


async def zombies_of(actor: Actor, environment: Mapping[str, str], folder: Path) -> list[Zombie]:
    """Return one zombie for every activity that writes, in the middle of its writes."""
    async with open_lane(environment, folder, EARNEST) as lane:
        item = actor.new_application(lane)
        item.spec = item.spec | ONE_BUCKET
        found = []
        for scenario, meanwhile in (("provision", "removed"), ("cleanup", "made anew")):
            seen = len(lane.journal())
            await actor.act(scenario, item)
            await actor.done(scenario, item)
            writes = writes_of(lane.journal()[seen:])
            found += [Zombie(scenario, name, (n + 1) // 2, meanwhile) for name, n in writes.items() if n]
    return found


async def haunt(
    actor: Actor,
    environment: Mapping[str, str],
    folder: Path,
    zombies: Sequence[Zombie],
    *,
    seconds: float,
    timing: Timing = EARNEST,
    mutant: Mutant | None = None,
) -> list[Evidence]:
    """Freeze one worker for each zombie, all at once, for at least so long, and say what each did afterwards.

    The frozen ones may be broken, the others are not.
    """

    async def one(number: int, zombie: Zombie) -> Evidence:
        own = folder / f"zombie-{number}"
        async with open_lane(environment, own / "frozen", timing, mutant=mutant) as frozen:
            return await _haunt(actor, environment, own / "other", zombie, frozen, timing, seconds)

    return await asyncio.gather(*(one(number, zombie) for number, zombie in enumerate(zombies)))


async def _haunt(
    actor: Actor,
    environment: Mapping[str, str],
    folder: Path,
    zombie: Zombie,
    frozen: Lane,
    timing: Timing,
    seconds: float,
) -> Evidence:
    async with AsyncExitStack() as stack:
        item = actor.new_application(frozen)
        item.spec = item.spec | ONE_BUCKET
        if zombie.scenario != "provision":
            await actor.act("provision", item)
            await actor.done("provision", item)
        frozen.arm(
            Fault(
                activity=zombie.activity,
                point="write",
                count=zombie.write,
                workflow=item.workflow,
                signal=signal.SIGSTOP,
            )
        )
        await actor.act(zombie.scenario, item)
        await frozen.frozen()
        began = time.monotonic()

        await stack.enter_async_context(open_lane(environment, folder, timing, frozen.task_queue))
        await actor.done(zombie.scenario, item)
        if zombie.meanwhile == "removed":
            await actor.act("cleanup", item)
            await actor.done("cleanup", item)
        if zombie.meanwhile == "made anew":
            await actor.act("provision", item)
            await actor.done("provision", item)
        await asyncio.sleep(max(0, began + seconds - time.monotonic()))

        seen = len(frozen.journal())
        seconds_frozen = time.monotonic() - began
        frozen.thaw()
        await asyncio.sleep(_AFTER_SECONDS)
        later = [entry for entry in frozen.journal()[seen:] if entry.activity == zombie.activity]
        return Evidence(
            zombie=zombie,
            writes=tuple(entry for entry in later if entry.event == "write"),
            ending=tuple(entry.event for entry in later if entry.event in ("end", "failed")),
            seconds_frozen=seconds_frozen,
            item=item,
        )
