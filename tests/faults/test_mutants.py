"""The crash matrix and its auditor can fail: each broken worker is found out at the places that are there for it."""

import pytest

from stack.platform import Platform
from tests.faults.mutants import Mutant
from tests.faults.mutation import TRIALS, Trial, run
from tests.faults.scenarios import Actor


async def test_a_password_made_anew_in_each_attempt_is_found(
    platform: Platform, actor: Actor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    [(trial, found)] = (await run(platform, actor, tmp_path_factory.mktemp("mutant"), TRIALS[:1])).items()

    assert trial.mutant is Mutant.NEW_PASSWORD
    assert trial.found in found


@pytest.fixture(scope="module")
async def found(platform: Platform, actor: Actor, tmp_path_factory: pytest.TempPathFactory) -> dict[Trial, str]:
    return await run(platform, actor, tmp_path_factory.mktemp("mutants"), TRIALS)


@pytest.mark.long
@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_a_broken_worker_is_found_out(found: dict[Trial, str], trial: Trial) -> None:
    assert trial.found in found[trial]


def test_every_mutant_is_tried() -> None:
    assert {trial.mutant for trial in TRIALS} == set(Mutant)
