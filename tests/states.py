"""The tests' own state folders: one for each pytest process, so that two run side by side."""

import json
import os
from itertools import chain
from pathlib import Path

from stack.folders import Folders, default_state, locked
from stack.settings import StateSettings


def state_of_tests(suffix: str = "") -> Path:
    """Return the state folder `test`, or `test-gw1` in the second process of pytest-xdist, with a suffix."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    parts = ["test", *([] if worker == "gw0" else [worker]), *([suffix] if suffix else [])]
    return default_state().parent / "-".join(parts)


def folders_of_tests(suffix: str = "") -> Folders:
    """Return the folders of a state whose ports are no other test state's.

    A state takes its ports when it is new, from those that are free. Two new states could take the same one, because
    neither listens yet.
    """
    folders = Folders(state=state_of_tests(suffix))
    others = [path for path in folders.state.parent.glob("test*/run/settings.json") if folders.run not in path.parents]
    with locked(folders.state.parent / "ports.lock"):
        taken = set(chain.from_iterable(json.loads(path.read_text())["ports"].values() for path in others))
        while taken & set(StateSettings.load(folders).ports.values()):
            (folders.run / "settings.json").unlink()
    return folders
