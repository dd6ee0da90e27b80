"""The database tests' PostgreSQL: the platform's own, another major version, or one that is soon full, by the mark."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stack.control import Control
from stack.endpoints import Endpoints
from stack.errors import PlatformError
from stack.folders import locked
from stack.platform import Platform
from stack.processes import Command
from stack.services.base import Site
from stack.services.postgres import Postgres
from stack.settings import StateSettings
from stack.tools.pins import pins
from stack.tools.resolve import resolve_tools
from stack.unit import Unit
from tests.states import folders_of_tests

# With the least that a server takes of what an application can use up. A queue of notifications is 8 GiB elsewhere.
SMALL = "small"
SMALL_VERSION = "postgres-17"
SMALL_SETTINGS = {"max_notify_queue_pages": "64", "max_connections": "40"}
# From 16 on Plattr sends all versions the same statements (clients/postgres.py): an attack runs on 15 and the newest.
ALIKE = ("postgres-16", "postgres-17")
OTHER_VERSIONS = sorted(name for name in pins() if name.startswith("postgres-"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_postgres") is not None:
        own = f"postgres-{pins()['postgres'].version.split('.')[0]}"
        # The platform's own goes by None, as it does in a test without the mark: both share what is connected.
        servers = [None, *OTHER_VERSIONS]
        is_attack = metafunc.definition.get_closest_marker("attack") is not None
        parameters = [
            pytest.param(server, id=server or own, marks=[pytest.mark.soak] if is_attack and server in ALIKE else [])
            for server in servers
        ]
        metafunc.parametrize("database_endpoints", parameters, indirect=True, scope="session")
    if metafunc.definition.get_closest_marker("small_postgres") is not None:
        metafunc.parametrize("database_endpoints", [SMALL], indirect=True, scope="session")


class SmallPostgres(Postgres):
    """A server that is soon full."""

    def command(self) -> Command:
        """Add the settings; of one that is given twice the last counts."""
        command = super().command()
        settings = [word for name, value in SMALL_SETTINGS.items() for word in ("-c", f"{name}={value}")]
        return command.model_copy(update={"arguments": (*command.arguments, *settings)})


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
    folders = folders_of_tests(name)
    # By its real path: initdb lies beside it there.
    version = SMALL_VERSION if name == SMALL else name
    server = resolve_tools([version], exclude=folders.bin, tell=print)[version].resolve()
    tools = {"postgres": server, "initdb": server.with_name("initdb")}
    site = Site(folders, StateSettings.load(folders), tools)
    # Another session on the same state waits; a server that a killed one left is ended by the unit.
    with locked(folders.run / "start.lock"):
        service = SmallPostgres(site) if name == SMALL else Postgres(site)
        unit = Unit(service, Control(folders), changed=lambda: None)
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
