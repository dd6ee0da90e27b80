"""The platform every test runs against, and the fixture plugins tests/fix_*.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.folders import default_state
from stack.platform import Platform
from stack.tools.pins import pins

pytest_plugins = [f"tests.{path.stem}" for path in sorted(Path(__file__).parent.glob("fix_*.py"))]

SHOWN = ("temporal", "kube-apiserver", "etcd", "kwok", "postgres", "versitygw", "keycloak")


def _platform() -> Platform:
    return Platform(default_state().parent / "test")


def pytest_report_header() -> list[str]:
    platform = _platform()
    state = "runs already" if platform.is_running else "starts with the first test that needs it"
    versions = ", ".join(f"{name} {pins()[name].version}" for name in SHOWN)
    return [f"platform: {platform.folders.state} ({state})", f"servers: {versions}"]


# Worker and watcher act on every object there is, and other tests keep theirs until the session ends: these go first.
WITH_PROCESSES = ("e2e", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return WITH_PROCESSES.index(folder) if folder in WITH_PROCESSES else len(WITH_PROCESSES)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The local platform without worker and watcher; reused if it runs, else started for this session."""
    platform = _platform()
    was_running = platform.is_running
    platform.start()

    yield platform

    if not was_running:
        platform.stop()
