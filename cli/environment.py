"""Which settings a command goes by: the shell's, or those of the local platform."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plattr.local_platform import COMMAND_SETTINGS, SUPERVISOR_LOCK, state_folder


@dataclass(frozen=True)
class LocalPlatform:
    """A local platform that runs, as it has told in its state folder."""

    settings: dict[str, str]
    temporal_ui: str


def settings(environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Return the environment; without KUBECONFIG and TEMPORAL_ADDRESS that of the local platform, if it runs.

    Either of them turns the local platform off: nobody wants half of one cluster and half of another.
    """
    if "KUBECONFIG" in environment or "TEMPORAL_ADDRESS" in environment:
        return environment
    platform = local_platform(environment)
    return {**environment, **platform.settings} if platform else environment


def local_platform(environment: Mapping[str, str] = os.environ) -> LocalPlatform | None:
    """Return the local platform; None: it does not run."""
    state = state_folder(environment, home=Path.home(), is_root=os.geteuid() == 0)
    try:
        if not _is_locked(state / SUPERVISOR_LOCK):
            return None
        told = json.loads((state / COMMAND_SETTINGS).read_text())
    except (FileNotFoundError, PermissionError):
        # It never ran, or it is another user's.
        return None
    return LocalPlatform(settings=told["settings"], temporal_ui=told["temporal_ui"])


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
