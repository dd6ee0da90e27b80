import fcntl
import json
from pathlib import Path

import pytest

from cli.environment import local_platform, settings
from plattr.local_platform import COMMAND_SETTINGS, SUPERVISOR_LOCK, state_folder
from stack.platform import Platform


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / COMMAND_SETTINGS).write_text(json.dumps({"settings": {"KUBECONFIG": "local"}, "temporal_ui": "ui"}))
    (tmp_path / SUPERVISOR_LOCK).touch()
    return tmp_path


def test_the_settings_are_the_local_platforms_while_its_supervisor_lives(state: Path) -> None:
    environment = {"PLATTR_STATE": str(state), "HOME": "/home/me"}

    with (state / SUPERVISOR_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = settings(environment)
    stopped = settings(environment)

    assert running == environment | {"KUBECONFIG": "local"}
    assert stopped == environment


def test_a_state_folder_that_never_ran_is_no_platform(tmp_path: Path) -> None:
    assert local_platform({"PLATTR_STATE": str(tmp_path)}) is None


def test_commands_find_the_platform_that_runs_and_learn_what_it_is(platform: Platform) -> None:
    found = local_platform({"PLATTR_STATE": str(platform.folders.state)})

    assert found is not None
    assert found.settings == platform.environment("cli")
    assert found.temporal_ui == platform.endpoints.temporal_ui


@pytest.mark.parametrize(
    ("environment", "is_root", "folder"),
    [
        ({"PLATTR_STATE": "/somewhere"}, True, "/somewhere"),
        ({}, True, "/var/lib/plattr/dev"),
        ({}, False, "/home/me/.local/state/plattr/dev"),
        ({"XDG_STATE_HOME": "/state"}, False, "/state/plattr/dev"),
        ({"XDG_STATE_HOME": "state"}, False, "/home/me/.local/state/plattr/dev"),
    ],
    ids=["set", "root", "user", "XDG", "relative"],
)
def test_the_state_folder_is_the_settings_or_roots_or_the_users(
    environment: dict[str, str], is_root: bool, folder: str
) -> None:
    assert state_folder(environment, home=Path("/home/me"), is_root=is_root) == Path(folder)
