"""Which settings a command uses: the shell's, or those of the local platform."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plattr.local_platform import COMMAND_SETTINGS, SUPERVISOR_LOCK, state_folder


@dataclass(frozen=True)
class LocalPlatform:
    """A running local platform, as it has described itself in its state folder."""

    settings: dict[str, str]
    temporal_ui: str


def settings(environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Return the environment. Without KUBECONFIG and TEMPORAL_ADDRESS, add the local platform's settings, if any.

    Either variable turns the local platform off, because a mix of two clusters is never wanted.
    """
    if "KUBECONFIG" in environment or "TEMPORAL_ADDRESS" in environment:
        return environment
    platform = local_platform(environment)
    return {**environment, **platform.settings} if platform else environment


def local_platform(environment: Mapping[str, str] = os.environ) -> LocalPlatform | None:
    """Return the local platform; None if it does not run."""
    state = state_folder(environment, home=Path.home(), is_root=os.geteuid() == 0)
    try:
        if not _is_locked(state / SUPERVISOR_LOCK):
            return None
        told = json.loads((state / COMMAND_SETTINGS).read_text())
    except (FileNotFoundError, PermissionError):
        # It never ran, or it belongs to another user.
        return None
    return LocalPlatform(settings=told["settings"], temporal_ui=told["temporal_ui"])


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
