"""The database tests' PostgreSQL: the platform's own, or another major version for a test that is marked so."""

import os
from collections.abc import Iterator

import pytest

from stack.folders import default_state
from stack.platform import Platform
from stack.tools.pins import pins
from stack.tools.resolve import resolve_tools, setting

# The platform's own major version goes by None, as it does in a test without the mark: both share what is connected.
OTHER_VERSIONS = sorted(name for name in pins() if name.startswith("postgres-"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_postgres") is not None:
        own = f"postgres-{pins()['postgres'].version.split('.')[0]}"
        metafunc.parametrize(
            "database_platform", [None, *OTHER_VERSIONS], ids=[own, *OTHER_VERSIONS], indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def database_platform(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Platform]:
    """The platform whose PostgreSQL is meant; one of another version has nothing else."""
    name: str | None = getattr(request, "param", None)
    if name is None:
        yield platform
        return
    other = Platform(default_state().parent / f"test-{name}")
    # By its real path: initdb lies beside it there.
    server = resolve_tools([name], exclude=other.folders.bin, tell=print)[name].resolve()
    was_running = other.is_running
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, setting("postgres"), str(server))
        other.start(services=["postgres"])

    yield other

    if not was_running:
        other.stop()
