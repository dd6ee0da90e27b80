"""The platform every test runs against, the fixture plugins tests/fix_*.py, and how two processes share the tests."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from stack.platform import Platform
from stack.tools.pins import pins
from tests.states import folders_of_tests, state_of_tests

pytest_plugins = [f"tests.{path.stem}" for path in sorted(Path(__file__).parent.glob("fix_*.py"))]

SHOWN = ("temporal", "kube-apiserver", "etcd", "kwok", "postgres", "versitygw", "keycloak")


def pytest_report_header() -> list[str]:
    platform = Platform(state_of_tests())
    state = "runs already" if platform.is_running else "starts with the first test that needs it"
    versions = ", ".join(f"{name} {pins()[name].version}" for name in SHOWN)
    return [f"platform: {platform.folders.state} ({state})", f"servers: {versions}"]


# Worker and watcher act on every object there is, and other tests keep theirs until the session ends: these go first.
WITH_PROCESSES = ("e2e", "faults")
# One process runs all of these: they share what takes long to start.
WHOLE_FOLDERS = (*WITH_PROCESSES, "cli", "deploy", "stack", "workflows")
OTHER_SERVER = re.compile(r"\[(?:.*-)?(postgres-\d+|small)(?:-.*)?\]$")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return WITH_PROCESSES.index(folder) if folder in WITH_PROCESSES else len(WITH_PROCESSES)

    items.sort(key=rank)


class PlatformScheduling(LoadScopeScheduling):
    """Gives each process of `pytest -n 2` a folder, a server's version or a module at a time.

    Each process has a platform of its own. The first begins with `e2e`, the second with `faults`.
    """

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        folder = path.split("/")[1]
        if folder in WHOLE_FOLDERS:
            return folder
        server = OTHER_SERVER.search(nodeid)
        return server[1] if server else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> PlatformScheduling:
    # In the order of collection, not the largest first.
    config.option.loadscopereorder = False
    return PlatformScheduling(config, log)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The local platform without worker and watcher; reused if it runs, else started for this session."""
    platform = Platform(folders_of_tests().state)
    was_running = platform.is_running
    platform.start()

    yield platform

    if not was_running:
        platform.stop()
