"""Measure what Temporal's sandbox costs the worker, by a replay of a recorded run in the sandbox and outside.

uv run python -m bench.sandbox     # CPU milliseconds a run; a minute, no backend

The replay runs in the sandbox, in the sandbox with all modules shared, and outside. A replay does everything that a
worker does for a run except the network: it creates the workflow, reads its payloads and computes its commands.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from worker.registry import WORKFLOWS

HISTORIES = Path(__file__).resolve().parent.parent / "tests" / "replay" / "histories"
RUNS = 20
OURS = ("plattr", "clients", "activities", "workflows", "telemetry", "temporalio", "pydantic")
RUNNERS: Mapping[str, WorkflowRunner] = {
    "sandbox": SandboxedWorkflowRunner(),
    "sandbox, Plattr's modules passed through": SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(*OURS)
    ),
    "sandbox, all modules passed through": SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_all_modules()
    ),
    "none": UnsandboxedWorkflowRunner(),
}


async def measure(runner: WorkflowRunner, histories: list[WorkflowHistory]) -> float:
    """Return the CPU milliseconds of one history's replay."""
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=runner)
    begun = time.process_time()
    for history in histories:
        await replayer.replay_workflow(history)
    return (time.process_time() - begun) * 1000 / len(histories)


async def main() -> None:
    """Measure each runner in turn, twice, and print the better result."""
    paths = sorted(HISTORIES.glob("*-ProvisionApplication-completed-*.json"))
    histories = [WorkflowHistory.from_json(path.stem, path.read_text()) for path in paths] * RUNS
    figures: dict[str, list[float]] = {name: [] for name in RUNNERS}
    for _ in range(2):
        for name, runner in RUNNERS.items():
            figures[name].append(await measure(runner, histories))
    base = min(figures["none"])
    for name, each in figures.items():
        print(f"{name:45} {min(each):7.1f} ms of CPU a run, {min(each) / base:4.1f} times")


if __name__ == "__main__":
    asyncio.run(main())
