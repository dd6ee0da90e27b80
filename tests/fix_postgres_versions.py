"""The database tests' PostgreSQL: the platform's own, or another major version for a test that is marked so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stack.control import Control
from stack.endpoints import Endpoints
from stack.errors import PlatformError
from stack.folders import Folders, default_state, locked
from stack.platform import Platform
from stack.services.base import Site
from stack.services.postgres import Postgres
from stack.settings import StateSettings
from stack.tools.pins import pins
from stack.tools.resolve import resolve_tools
from stack.unit import Unit

OTHER_VERSIONS = sorted(name for name in pins() if name.startswith("postgres-"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_postgres") is not None:
        own = f"postgres-{pins()['postgres'].version.split('.')[0]}"
        # The platform's own goes by None, as it does in a test without the mark: both share what is connected.
        metafunc.parametrize(
            "database_endpoints", [None, *OTHER_VERSIONS], ids=[own, *OTHER_VERSIONS], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def database_endpoints(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Endpoints]:
    """The endpoints whose PostgreSQL is meant; with another version nothing else of them is there."""
    name: str | None = getattr(request, "param", None)
    if name is None:
        yield platform.endpoints
        return
    with running(name) as endpoints:
        yield endpoints


@contextmanager
def running(name: str) -> Iterator[Endpoints]:
    """Run one server of another version, whose data stay for the next session, as the platform's do."""
    folders = Folders(state=default_state().parent / f"test-{name}")
    # By its real path: initdb lies beside it there.
    server = resolve_tools([name], exclude=folders.bin, tell=print)[name].resolve()
    tools = {"postgres": server, "initdb": server.with_name("initdb")}
    site = Site(folders, StateSettings.load(folders), tools)
    # Another session on the same state waits; a server that a killed one left is ended by the unit.
    with locked(folders.run / "start.lock"):
        unit = Unit(Postgres(site), Control(folders), changed=lambda: None)
        unit.start()
        unit.want(wanted=True)
        try:
            while not unit.is_running:
                if unit.status().state == "failed":
                    raise PlatformError(f"cannot start {name}: {unit.status().message}")
                time.sleep(0.05)
            yield Endpoints.of(site)
        finally:
            unit.want(wanted=False)
            unit.wait_stopped(timeout_seconds=30)
