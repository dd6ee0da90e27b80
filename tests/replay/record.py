"""Record histories of real runs, to be replayed by test_replay.py for as long as such runs may be open anywhere.

    uv run python -m tests.replay.record v0.1.0

It starts the tests' platform (PLATTR_STATE's sibling `test`) with the worker and the watcher of this working copy,
brings about what an upgrade meets, and takes some two minutes. Nothing has to run before.
"""

import argparse
import asyncio
import base64
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from temporalio.client import Client, WorkflowExecution

from clients.resources import SECRETS
from stack.errors import PlatformError
from stack.platform import Platform
from stack.settings import StateSettings
from tests.e2e.view import View
from tests.faults.ground import ground, own_platform
from tests.replay.staging import Handle, Stage

ROOT = Path(__file__).parents[2]
HISTORIES = Path(__file__).parent / "histories"
# 2: enough for a short and a long one of each kind; they are read by people in reviews.
KEPT_OF_A_KIND = 2
CLOSE_SECONDS = 600.0
# A payload, whatever it holds, is base64 in the JSON of a history.
PAYLOAD = re.compile(r'"data":\s*"([A-Za-z0-9+/=]+)"')


def version() -> str:
    """Return the version in pyproject.toml, which is the one that the next tag has."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def readable(history: str) -> str:
    """Return a history's JSON with its payloads in clear."""
    return PAYLOAD.sub(lambda found: base64.b64decode(found[1]).decode(errors="replace"), history)


class Recorder:
    """Writes histories of one release; refuses one that holds a secret of the platform it was recorded on."""

    def __init__(self, release: str, view: View) -> None:
        self._release = release
        self._view = view
        self._secrets: set[str] = set(StateSettings.load(view.platform.folders).credentials.values())

    async def keep(self, label: str, run: Handle) -> None:
        """Record a run as it is now."""
        history = await run.fetch_history()
        text = history.to_json()
        await self._learn_secrets()
        if leaked := [name for name in self._secrets if name in readable(text)]:
            raise SystemExit(f"cannot record {run.id}: {len(leaked)} secrets of the platform are in its history")
        workflow_type = history.events[0].workflow_execution_started_event_attributes.workflow_type.name
        stem = f"{self._release}-{workflow_type}-{label}"
        number = len(list(HISTORIES.glob(f"{stem}-*.json")))
        path = HISTORIES / f"{stem}-{number}.json"
        path.write_text(text)
        sys.stdout.write(f"{path.name}: {len(history.events)} events\n")
        sys.stdout.flush()

    async def keep_closed(self, client: Client) -> None:
        """Record, of each type and way to end, the longest runs that are over."""
        kinds: dict[tuple[str, str], list[WorkflowExecution]] = defaultdict(list)
        query = f"ExecutionStatus != 'Running' and (PlattrNamespace = '{self._view.namespace}' or {_OF_NO_OBJECT})"
        async for execution in client.list_workflows(query):
            assert execution.status is not None
            kinds[execution.workflow_type, execution.status.name.lower()].append(execution)
        for (_, status), executions in sorted(kinds.items()):
            if status == "canceled":
                continue  # Staged, and recorded when it happened.
            executions.sort(key=lambda execution: -(execution.history_length or 0))
            for execution in executions[:KEPT_OF_A_KIND]:
                await self.keep(status, client.get_workflow_handle(execution.id, run_id=execution.run_id))

    async def _learn_secrets(self) -> None:
        for body in await self._view.kube.list(SECRETS):
            self._secrets |= set(_passwords(body.get("data", {}).items()))


_OF_NO_OBJECT = "WorkflowType in ('ResyncFleet', 'LookAtReferences')"


def _passwords(data: Iterable[tuple[str, str]]) -> Iterable[str]:
    for key, value in data:
        if "PASSWORD" in key or "SECRET" in key or key.endswith("_URL"):
            text = base64.b64decode(value).decode(errors="replace")
            if len(text) >= 8:
                yield text


async def wait_closed(client: Client, namespace: str) -> None:
    """Wait for the last runs. On a busy machine a cleanup waits minutes for a call that was never answered."""
    async with asyncio.timeout(CLOSE_SECONDS):
        while (await client.count_workflows(f"PlattrNamespace = '{namespace}' and ExecutionStatus = 'Running'")).count:
            await asyncio.sleep(1)


async def record(platform: Platform, release: str) -> None:
    """Play everything and record it."""
    async with ground(platform) as (view, temporal):
        recorder = Recorder(release, view)
        await Stage(view, recorder.keep).play()
        await wait_closed(temporal, view.namespace)
        await recorder.keep_closed(temporal)


def release_of(text: str) -> str:
    """Return the release; it is the one that pyproject.toml names."""
    if text != f"v{version()}":
        raise argparse.ArgumentTypeError(
            f"cannot record {text!r}: pyproject.toml has version {version()}; bump it first, or give v{version()}"
        )
    if list(HISTORIES.glob(f"{text}-*.json")):
        raise argparse.ArgumentTypeError(
            f"cannot record {text!r}: tests/replay/histories has histories of it; a release is recorded once, so remove"
            " them if it is not tagged yet"
        )
    return text


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.replay.record",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("release", type=release_of, help="the tag to be, as v0.2.0")
    release = parser.parse_args().release
    try:
        with own_platform("worker", "watcher") as platform:
            asyncio.run(record(platform, release))
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
