"""Where the local platform keeps its state: `stack/` writes it, and commands read it without importing `stack`."""

from collections.abc import Mapping
from pathlib import Path

# Below the state folder. The supervisor holds the lock as long as it lives, and releases it however it ends.
SUPERVISOR_LOCK = Path("run/supervisor.lock")
# Private to the user, like everything in `run`, because the settings hold credentials.
COMMAND_SETTINGS = Path("run/commands.json")


def state_folder(environment: Mapping[str, str], *, home: Path, is_root: bool) -> Path:
    """Return the state folder: PLATTR_STATE, else /var/lib/plattr/dev for root, else the user's XDG state."""
    if setting := environment.get("PLATTR_STATE"):
        return Path(setting).expanduser().resolve()
    if is_root:
        return Path("/var/lib/plattr/dev")
    return xdg_folder(environment, "XDG_STATE_HOME", home / ".local/state") / "plattr" / "dev"


def xdg_folder(environment: Mapping[str, str], variable: str, fallback: Path) -> Path:
    """Return the folder that a variable of the XDG specification names; a relative path counts as not set."""
    setting = environment.get(variable, "")
    return Path(setting) if setting.startswith("/") else fallback
