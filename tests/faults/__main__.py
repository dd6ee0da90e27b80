"""`make faults`: the whole crash matrix, printed and written into docs/guarantees.md."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from cli.auditing.auditor import audit
from stack.platform import Platform
from tests.faults import full, report
from tests.faults.ground import ground, own_platform
from tests.faults.lanes import open_lane, open_lanes
from tests.faults.matrix import Matrix
from tests.faults.scenarios import Actor
from tests.faults.timing import EARNEST, QUICK
from tests.faults.zombies import Evidence, haunt, zombies_of

# Most of a place's time is spent waiting for a dead worker to be noticed, so lanes cost little.
LANES = 6
# Two processes each.
ZOMBIES_AT_ONCE = 6
FROZEN_SECONDS = 120.0


def tell(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


async def run(platform: Platform, folder: Path) -> bool:
    """Run everything, write it down, and return whether nothing was found."""
    async with ground(platform) as (view, temporal):
        actor = Actor(view, temporal)
        matrix = await _run_matrix(platform, actor, folder)
        zombies_are_dead = await _run_zombies(platform, actor, folder)
    return zombies_are_dead and not any(outcome.trouble for outcome in matrix.outcomes)


async def _run_matrix(platform: Platform, actor: Actor, folder: Path) -> Matrix:
    began = time.monotonic()
    async with open_lanes(platform, folder, LANES, QUICK) as lanes:
        matrix = Matrix(actor, lanes, platform.environment("cli"))
        await full.run(matrix, actor, lanes, tell)
    good = sum(not outcome.trouble for outcome in matrix.outcomes)
    text = (
        f"{len(matrix.outcomes)} places, {good} without a finding, in {(time.monotonic() - began) / 60:.0f} min."
        f" {report.when_and_where()}.\n\n{report.table(matrix.outcomes)}"
    )
    report.write_section("crash matrix", text)
    sys.stdout.write(f"{text}\n\n{report.troubles(matrix.outcomes)}\n")
    return matrix


async def _run_zombies(platform: Platform, actor: Actor, folder: Path) -> bool:
    environment, settings = platform.environment("worker"), platform.environment("cli")
    before = set(audit(settings).findings)
    zombies = await zombies_of(actor, environment, folder / "places")
    evidence: list[Evidence] = []
    for first in range(0, len(zombies), ZOMBIES_AT_ONCE):
        some = zombies[first : first + ZOMBIES_AT_ONCE]
        own = folder / f"zombies-{first}"
        evidence += await haunt(actor, environment, own, some, seconds=FROZEN_SECONDS)
        tell(f"{len(evidence)} of {len(zombies)} zombies are done")
    findings = set((await asyncio.to_thread(audit, settings)).findings) - before
    async with open_lane(environment, folder / "cleanup", EARNEST) as lane:
        for each in evidence:
            if each.zombie.meanwhile == "made anew":
                each.item.lane = lane
                await actor.act("cleanup", each.item)
                await actor.done("cleanup", each.item)
    text = (
        f"{len(evidence)} zombies, findings of the auditor: {len(findings)}. {report.when_and_where()}."
        f"\n\n{report.zombie_table(evidence)}"
    )
    report.write_section("zombies", text)
    sys.stdout.write(f"{text}\n{findings or ''}\n")
    return not findings and not any(each.writes for each in evidence)


def main() -> int:
    with own_platform() as platform:
        folder = Path(tempfile.mkdtemp(prefix="plattr-faults-"))
        tell(f"journals and logs of the workers: {folder}")
        is_good = asyncio.run(run(platform, folder))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
