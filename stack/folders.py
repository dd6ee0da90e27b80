"""The folders of the local platform's state and binaries."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from plattr.local_platform import state_folder, xdg_folder

# In a checkout deploy/crds and deploy/rbac are beside the packages.
DEPLOY = Path(__file__).resolve().parent.parent / "deploy"


def default_state() -> Path:
    """Return the state folder: PLATTR_STATE, else /var/lib/plattr/dev for root, else the user's XDG state."""
    return state_folder(os.environ, home=Path.home(), is_root=os.geteuid() == 0)


def default_cache() -> Path:
    """Return the binaries' cache: PLATTR_CACHE, else /var/cache/plattr for root, else the user's XDG cache."""
    if setting := os.environ.get("PLATTR_CACHE"):
        return Path(setting).expanduser().resolve()
    if os.geteuid() == 0:
        return Path("/var/cache/plattr")
    return xdg_folder(os.environ, "XDG_CACHE_HOME", Path.home() / ".cache") / "plattr"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file. The kernel releases it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically, so that no reader sees half of it. Only its owner can read it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


class Folders(BaseModel):
    """The layout of one state folder."""

    model_config = ConfigDict(frozen=True)

    state: Path

    @property
    def bin(self) -> Path:
        """Links to every tool: kubectl, temporal, psql, ..."""
        return self.state / "bin"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Files that the supervisor and its callers exchange; private to the user."""
        return self.state / "run"

    def service(self, name: str) -> Path:
        """Return the folder of one service."""
        return self.state / name

    def log(self, unit: str) -> Path:
        """Return the log of one process."""
        return self.logs / f"{unit}.log"

    def create(self) -> None:
        """Create the folders. For root, others may pass through: PostgreSQL runs as an ordinary user."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o755 if os.geteuid() == 0 else 0o700)
        self.bin.mkdir(exist_ok=True, mode=0o755)
        self.logs.mkdir(exist_ok=True, mode=0o700)
        self.run.mkdir(exist_ok=True, mode=0o700)
