"""A worker that stands still in the middle of an activity, and wakes when another has long taken over."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from plattr.objects import Kind
from tests.faults.lanes import Lane, open_lane
from tests.faults.matrix import writes_of
from tests.faults.mutants import Mutant
from tests.faults.scenarios import OLD_ENOUGH_SECONDS, Actor, Item, Scenario
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
    meanwhile: Literal["finished", "removed", "made again"]
    kind: Kind = Kind.APPLICATION

    def __str__(self) -> str:
        return f"{self.activity} before write {self.write}, {self.meanwhile} meanwhile"

    @property
    def beginning(self) -> Scenario:
        """How such an object is made."""
        return "provision" if self.kind is Kind.APPLICATION else "preview"


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


# What a preview alone has; the rest of its activities are an Application's.
_OF_PREVIEWS = ("reconcile_namespace", "warn_of_expiry", "delete_expired", "delete_namespace")


@asynccontextmanager
async def parent_of_previews(actor: Actor, environment: Mapping[str, str], folder: Path) -> AsyncIterator[Item]:
    """An Application for previews, as long as they are needed."""
    async with open_lane(environment, folder, EARNEST) as lane:
        parent = actor.new_application(lane)
        parent.spec = parent.spec | ONE_BUCKET
        await actor.act("provision", parent)
        await actor.done("provision", parent)
        yield parent
        await actor.act("cleanup", parent)
        await actor.done("cleanup", parent)


async def zombies_of(actor: Actor, environment: Mapping[str, str], folder: Path, parent: Item) -> list[Zombie]:
    """Return one zombie for every activity that writes, in the middle of its writes."""

    async def go(item: Item, *zombies: Zombie) -> list[Zombie]:
        found = []
        for zombie in zombies:
            seen = len(lane.journal(item.workflow))
            if zombie.scenario == "expiry":
                await asyncio.sleep(OLD_ENOUGH_SECONDS)
            await actor.act(zombie.scenario, item)
            await actor.done(zombie.scenario, item)
            writes = writes_of(lane.journal(item.workflow)[seen:])
            for name, n in writes.items():
                if n and (zombie.kind is Kind.APPLICATION or name in _OF_PREVIEWS):
                    found.append(replace(zombie, activity=name, write=(n + 1) // 2))
        return found

    async with open_lane(environment, folder, EARNEST) as lane:
        application = actor.new_application(lane)
        application.spec = application.spec | ONE_BUCKET
        preview = partial(Zombie, activity="", write=0, kind=Kind.PREVIEW)
        found = await asyncio.gather(
            go(application, Zombie("provision", "", 0, "removed"), Zombie("cleanup", "", 0, "made again")),
            go(
                actor.new_preview(lane, parent),
                preview(scenario="preview", meanwhile="removed"),
                preview(scenario="expiry", meanwhile="made again"),
            ),
            go(actor.new_preview(lane, parent), preview(scenario="warning", meanwhile="made again")),
        )
    warnings = [zombie for zombie in found[2] if zombie.activity == "warn_of_expiry"]
    return [*found[0], *found[1], *warnings]


async def haunt(
    actor: Actor,
    environment: Mapping[str, str],
    folder: Path,
    zombies: Sequence[Zombie],
    *,
    seconds: float,
    parent: Item | None = None,
    timing: Timing = EARNEST,
    mutant: Mutant | None = None,
) -> list[Evidence]:
    """Freeze one worker for each zombie, all at once, for at least so long, and say what each did afterwards.

    The frozen ones may be broken, the others are not.
    """

    async def one(number: int, zombie: Zombie) -> Evidence:
        own = folder / f"zombie-{number}"
        async with open_lane(environment, own / "frozen", timing, mutant=mutant) as frozen:
            item = _new_item(actor, frozen, zombie, parent)
            return await _haunt(actor, environment, own / "other", zombie, item, timing, seconds)

    return await asyncio.gather(*(one(number, zombie) for number, zombie in enumerate(zombies)))


async def remove_haunted(
    actor: Actor, environment: Mapping[str, str], folder: Path, evidence: Sequence[Evidence]
) -> None:
    """Remove the objects that are left."""

    async def one(item: Item) -> None:
        # The run of a preview stays on the task queue on which it began.
        async with open_lane(environment, folder / item.name, EARNEST, item.lane.task_queue):
            await actor.act("cleanup", item)
            await actor.done("cleanup", item)

    await asyncio.gather(*(one(each.item) for each in evidence if each.zombie.meanwhile != "removed"))


def _new_item(actor: Actor, lane: Lane, zombie: Zombie, parent: Item | None) -> Item:
    if zombie.kind is Kind.PREVIEW:
        assert parent is not None
        return actor.new_preview(lane, parent)
    item = actor.new_application(lane)
    item.spec = item.spec | ONE_BUCKET
    return item


async def _haunt(
    actor: Actor,
    environment: Mapping[str, str],
    folder: Path,
    zombie: Zombie,
    item: Item,
    timing: Timing,
    seconds: float,
) -> Evidence:
    frozen, original = item.lane, item.spec
    async with AsyncExitStack() as stack:
        if zombie.scenario not in ("provision", "preview", "warning"):
            await actor.act(zombie.beginning, item)
            await actor.done(zombie.beginning, item)
        if zombie.scenario == "expiry":
            await asyncio.sleep(OLD_ENOUGH_SECONDS)
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
        # 120 s: a preview is warned of its end after 54 s at the earliest.
        await frozen.frozen(120)
        began = time.monotonic()

        await stack.enter_async_context(open_lane(environment, folder, timing, frozen.task_queue))
        await actor.done(zombie.scenario, item)
        if zombie.meanwhile == "removed":
            await actor.act("cleanup", item)
            await actor.done("cleanup", item)
        if zombie.meanwhile == "made again":
            item.spec = original
            await actor.act(zombie.beginning, item)
            await actor.done(zombie.beginning, item)
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
