"""Record histories of real runs, to be replayed by test_replay.py for as long as such runs may be open anywhere.

    TEMPORAL_ADDRESS=127.0.0.1:7233 uv run python -m tests.replay.record v0.1.0

Take a platform on which the end-to-end tests ran: of each workflow type and way to end, the longest histories are kept.
"""

import asyncio
import sys
from collections import defaultdict
from pathlib import Path

from temporalio.client import Client, WorkflowExecution

from activities.clients.temporal import connect_temporal

HISTORIES = Path(__file__).parent / "histories"
# 2: enough for a short and a long one of each kind; they are read by people in reviews.
KEPT_OF_A_KIND = 2


async def record(client: Client, release: str) -> None:
    kinds: dict[tuple[str, str], list[WorkflowExecution]] = defaultdict(list)
    async for execution in client.list_workflows("ExecutionStatus != 'Running'"):
        assert execution.status is not None
        kinds[execution.workflow_type, execution.status.name.lower()].append(execution)
    for (workflow_type, status), executions in sorted(kinds.items()):
        executions.sort(key=lambda execution: -(execution.history_length or 0))
        for number, execution in enumerate(executions[:KEPT_OF_A_KIND]):
            handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
            history = await handle.fetch_history()
            path = HISTORIES / f"{release}-{workflow_type}-{status}-{number}.json"
            path.write_text(history.to_json())
            sys.stdout.write(f"{path.name}: {len(history.events)} events\n")


async def main(release: str) -> None:
    await record(await connect_temporal(lazy=False), release)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
