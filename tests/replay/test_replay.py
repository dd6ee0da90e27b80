"""Histories of real runs replay: whoever reorders a workflow's commands learns it here, not from stuck runs."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from worker.registry import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


@pytest.fixture(scope="module")
def replayer() -> Replayer:
    return Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(replayer: Replayer, path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, path.read_text())

    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)

    assert result.replay_failure is None, result.replay_failure


def test_every_workflow_has_a_recorded_history() -> None:
    recorded = {path.stem.split("-")[1] for path in HISTORIES}

    assert {workflow.__name__ for workflow in WORKFLOWS} <= recorded


async def test_a_reordered_history_does_not_replay(replayer: Replayer) -> None:
    path = next(path for path in HISTORIES if "ProvisionApplication-completed" in path.stem)
    reordered = path.read_text().replace("reconcile_workload", "reconcile_queue")

    result = await replayer.replay_workflow(
        WorkflowHistory.from_json(path.stem, reordered), raise_on_replay_failure=False
    )

    assert result.replay_failure is not None
