"""`make faults`: the whole crash matrix, the zombies and the mutants, printed and written into docs/.

The page is docs/guarantees-matrix.md.

`make faults FAULTS="--only mutants"` runs one of the three.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cli.auditing.auditor import audit
from stack.platform import Platform
from tests.faults import full, mutation, report
from tests.faults.ground import ground, own_platform
from tests.faults.lanes import open_lanes
from tests.faults.matrix import Matrix
from tests.faults.scenarios import Actor
from tests.faults.timing import QUICK
from tests.faults.zombies import Evidence, haunt, parent_of_previews, remove_haunted, zombies_of

# Most of a place's time is spent waiting for a dead worker to be noticed, so lanes cost little.
LANES = 6
# Two processes each.
ZOMBIES_AT_ONCE = 6
FROZEN_SECONDS = 120.0


def tell(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


async def run(platform: Platform, folder: Path, parts: Sequence[str]) -> bool:
    """Run the parts, write them down, and return whether each came out as it must."""
    async with ground(platform) as (view, temporal):
        actor = Actor(view, temporal)
        return all([await _PARTS[part](platform, actor, folder / part) for part in parts])


async def _run_matrix(platform: Platform, actor: Actor, folder: Path) -> bool:
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
    return good == len(matrix.outcomes)


async def _run_zombies(platform: Platform, actor: Actor, folder: Path) -> bool:
    environment, settings = platform.environment("worker"), platform.environment("cli")
    before = set(audit(settings).findings)
    async with parent_of_previews(actor, environment, folder / "parent") as parent:
        zombies = await zombies_of(actor, environment, folder / "places", parent)
        evidence: list[Evidence] = []
        for first in range(0, len(zombies), ZOMBIES_AT_ONCE):
            some = zombies[first : first + ZOMBIES_AT_ONCE]
            own = folder / f"zombies-{first}"
            evidence += await haunt(actor, environment, own, some, seconds=FROZEN_SECONDS, parent=parent)
            tell(f"{len(evidence)} of {len(zombies)} zombies are done")
        findings = set((await asyncio.to_thread(audit, settings)).findings) - before
        await remove_haunted(actor, environment, folder / "cleanup", evidence)
    text = (
        f"{len(evidence)} zombies, findings of the auditor: {len(findings)}. {report.when_and_where()}."
        f"\n\n{report.zombie_table(evidence)}"
    )
    report.write_section("zombies", text)
    sys.stdout.write(f"{text}\n{findings or ''}\n")
    return not findings and not any(each.writes for each in evidence)


async def _run_mutants(platform: Platform, actor: Actor, folder: Path) -> bool:
    found = await mutation.run(platform, actor, folder, mutation.TRIALS)
    text = f"{report.when_and_where()}.\n\n{report.mutant_table(found)}"
    report.write_section("mutants", text)
    sys.stdout.write(f"{text}\n")
    return all(trial.found in told for trial, told in found.items())


_PARTS = {"matrix": _run_matrix, "zombies": _run_zombies, "mutants": _run_mutants}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(_PARTS))
    only = parser.parse_args().only
    with own_platform() as platform:
        folder = Path(tempfile.mkdtemp(prefix="plattr-faults-"))
        tell(f"journals and logs of the workers: {folder}")
        is_good = asyncio.run(run(platform, folder, [only] if only else list(_PARTS)))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
