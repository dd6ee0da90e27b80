"""The mutation check of the matrix: broken workers, the places that must find them out, and what was found there."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from stack.platform import Platform
from tests.faults.lanes import open_lane
from tests.faults.matrix import Matrix, Point, concerns, told
from tests.faults.mutants import Mutant
from tests.faults.scenarios import Actor, Item
from tests.faults.timing import QUICK
from tests.faults.zombies import Zombie, haunt

_BEGINNINGS = ("provision", "half made")
# Longer than QUICK's fence and heartbeat timeout.
_FROZEN_SECONDS = 8.0


@dataclass(frozen=True)
class Trial:
    """A broken worker at a place, and what must be found there."""

    mutant: Mutant
    place: Point | Zombie
    found: str
    """A part of the trouble that is to be reported."""

    def __str__(self) -> str:
        return f"{self.mutant.name.lower()}: {self.place}"


TRIALS = (
    Trial(Mutant.NEW_PASSWORD, Point("provision", "reconcile_database", "after"), "the password is another one"),
    Trial(Mutant.NEW_PASSWORD, Point("provision", "reconcile_database", "write", 2), "the password is another one"),
    Trial(Mutant.NEW_PASSWORD, Point("image changed", "reconcile_workload", "after"), "the password is another one"),
    # Its writes are all the claims, at once, then the finalizer.
    Trial(Mutant.LATE_FINALIZER, Point("half made", "claim_object", "write", 9), "orphan claim"),
    Trial(Mutant.NO_FINALIZER, Point("half made", "claim_object", "after"), "orphan claim"),
    Trial(Mutant.NO_FINALIZER, Point("half made", "reconcile_storage", "write", 4), "orphan schema"),
    Trial(Mutant.SWALLOWED_ERROR, Point("cleanup", "delete_storage", "before"), "orphan bucket"),
    Trial(Mutant.SWALLOWED_ERROR, Point("cleanup", "delete_database", "after"), "orphan bucket"),
    Trial(Mutant.HALF_TRANSACTION, Point("half made", "reconcile_database", "write", 3), "unmarked role"),
    Trial(Mutant.HALF_TRANSACTION, Point("half made", "reconcile_database", "write", 4), "unmarked role"),
    Trial(Mutant.KEPT_CLAIMS, Point("cleanup", "release_object", "before"), "orphan claim"),
    Trial(Mutant.KEPT_CLAIMS, Point("cleanup", "release_object", "after"), "orphan claim"),
    Trial(Mutant.LOST_REQUESTS, Point("resync", "request_reconciles", "before"), "not mended"),
    Trial(Mutant.EVENT_ANEW, Point("stuck cleanup", "report_stuck", "write", 2), "told by 2 Events"),
    Trial(Mutant.EVENT_ANEW, Point("stuck cleanup", "report_stuck", "after"), "told by 2 Events"),
    Trial(Mutant.NO_FENCE, Zombie("provision", "reconcile_database", 1, "removed"), "after it woke"),
    # A call made in a thread, which nobody calls back.
    Trial(Mutant.NO_FENCE, Zombie("provision", "reconcile_storage", 2, "removed"), "bucket plattr-prod-"),
)


async def run(platform: Platform, actor: Actor, folder: Path, trials: Sequence[Trial]) -> dict[Trial, str]:
    """Return what was found in each trial; what the broken workers left is removed, and nothing may be left then."""
    environment, settings = platform.environment("worker"), platform.environment("cli")
    found: dict[Point | Zombie, str] = {}
    kills = {trial.place: trial.mutant for trial in trials if isinstance(trial.place, Point)}
    # A resync is everybody's, so nothing else may go on then.
    for is_resync in (False, True):
        some = {place: mutant for place, mutant in kills.items() if (place.scenario == "resync") is is_resync}
        found.update((await _kill(environment, settings, actor, folder / f"kills-{is_resync}", some)).items())
    for mutant in dict.fromkeys(trial.mutant for trial in trials if isinstance(trial.place, Zombie)):
        zombies = [trial.place for trial in trials if trial.mutant is mutant and isinstance(trial.place, Zombie)]
        found.update((await _freeze(environment, settings, actor, folder / "zombies", mutant, zombies)).items())
    return {trial: found[trial.place] for trial in trials}


async def _kill(
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    actor: Actor,
    folder: Path,
    mutants: Mapping[Point, Mutant],
) -> dict[Point, str]:
    async with AsyncExitStack() as stack:
        # Side by side, each broken in its own way.
        lanes = {
            mutant: await stack.enter_async_context(
                open_lane(environment, folder / mutant.name.lower(), QUICK, mutant=mutant)
            )
            for mutant in dict.fromkeys(mutants.values())
        }
        matrix = Matrix(actor, list(lanes.values()), settings)
        await matrix.begin()
        items = {place: actor.new_application(lanes[mutant]) for place, mutant in mutants.items()}
        await matrix.perform("provision", [item for place, item in items.items() if place.scenario not in _BEGINNINGS])
        await asyncio.gather(*(actor.write_data(item) for place, item in items.items() if place.scenario == "cleanup"))
        await matrix.strike(items.items())
    await _remove(environment, actor, matrix, items.values())
    return {outcome.point: outcome.trouble for outcome in matrix.outcomes}


async def _freeze(
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    actor: Actor,
    folder: Path,
    mutant: Mutant,
    zombies: Sequence[Zombie],
) -> dict[Zombie, str]:
    matrix = Matrix(actor, (), settings)
    await matrix.begin()
    evidence = await haunt(actor, environment, folder, zombies, seconds=_FROZEN_SECONDS, timing=QUICK, mutant=mutant)
    findings = await matrix.findings()
    await _remove(environment, actor, matrix, [each.item for each in evidence])
    found = {}
    for each in evidence:
        own = told(finding for finding in findings if concerns(finding, each.item))
        woke = f"{len(each.writes)} writes after it woke" if each.writes else ""
        found[each.zombie] = "; ".join(text for text in (woke, own) if text)
    return found


async def _remove(environment: Mapping[str, str], actor: Actor, matrix: Matrix, items: Iterable[Item]) -> None:
    """Remove the objects, or what they left, by workers that are as they should be."""

    async def one(item: Item) -> None:
        async with open_lane(environment, item.lane.folder / f"mended-{item.name}", QUICK, item.lane.task_queue):
            await actor.act("cleanup", item)
            await actor.done("cleanup", item)
        # What nobody wrote his name on no cleanup touches.
        for role in ("app", "anon"):
            await actor.view.query(f"drop role if exists prod_{item.name}_{role}")
        for bucket in await asyncio.to_thread(actor.view.buckets, f"plattr-prod-{item.name}-"):
            await asyncio.to_thread(actor.view.s3().delete_bucket, Bucket=bucket)

    await asyncio.gather(*map(one, items))
    assert await matrix.findings() == []
