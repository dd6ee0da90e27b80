import fcntl
import threading
from pathlib import Path

import pytest

from stack import supervisor


def test_a_command_that_looks_for_the_supervisor_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.lock"
    path.touch()

    with path.open() as looking, path.open("a") as lock:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN)).start()

        assert supervisor.take_lock(lock)


def test_a_second_supervisor_does_not_get_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOCK_SECONDS", 0.1)
    path = tmp_path / "supervisor.lock"

    with path.open("a") as first, path.open("a") as second:
        assert supervisor.take_lock(first)
        assert not supervisor.take_lock(second)
