"""Platforms of their own for the tests that stop and kill them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.platform import Platform

# Keycloak is left out: it alone takes ten seconds to start, and is supervised by the same code.
SERVICES = ("temporal", "postgres", "s3", "kubernetes")


@contextmanager
def _state() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="plattr-", dir="/var/tmp"))
    # PostgreSQL's user must pass through; as root, pytest's own temporary folders are private.
    path.chmod(0o755)
    yield path
    if path.exists():
        shutil.rmtree(path)


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder for one test, which stops what it starts there."""
    with _state() as path:
        yield path


@pytest.fixture(scope="module")
def own_platform() -> Iterator[Platform]:
    """A second platform beside the shared one."""
    with _state() as path:
        platform = Platform(path)
        platform.start(services=SERVICES)
        yield platform
        platform.stop()
