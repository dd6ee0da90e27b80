"""Operating-system processes: started in their own session, and identified reliably later."""

import contextlib
import os
import pwd
import signal
import subprocess
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from stack.errors import PlatformError


class Command(BaseModel):
    """What to run: program, environment (complete, nothing is inherited), folder and user."""

    model_config = ConfigDict(frozen=True)

    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    folder: Path = Path("/")
    user: str | None = None


class ProcessIdentity(BaseModel):
    """One process. The pid alone is not enough, because after a reboot another process may have it."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float
    command: str

    @classmethod
    def of(cls, pid: int, command: str) -> "ProcessIdentity":
        """Describe a running process.

        Raises:
            psutil.NoSuchProcess: the process is already gone.
        """
        return cls(pid=pid, created=psutil.Process(pid).create_time(), command=command)

    @classmethod
    def read(cls, path: Path) -> "ProcessIdentity | None":
        """Read an identity from a file, if the file exists."""
        return cls.model_validate_json(path.read_text()) if path.exists() else None

    def process(self) -> psutil.Process | None:
        """Return the process if it is alive and is the one described. A zombie does not count."""
        try:
            process = psutil.Process(self.pid)
            # Two seconds: the start time is derived from the boot time, which changes with the clock.
            if abs(process.create_time() - self.created) > 2 or process.status() == psutil.STATUS_ZOMBIE:
                return None
            # Servers such as PostgreSQL rename themselves. The first word still has the executable's name.
            first = Path((process.cmdline() or [""])[0].split(" ")[0].rstrip(":")).name
        except psutil.NoSuchProcess:
            return None
        return process if first in {Path(self.command).name, "sh"} else None


def base_environment() -> dict[str, str]:
    """Return the part of the environment that every child gets: no credentials, no proxies, no PG* or AWS_*."""
    names = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "JAVA_HOME", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in names if name in os.environ}


def unprivileged_user() -> str | None:
    """Return the account for a server that refuses to run as root; None if this process is not root.

    Raises:
        PlatformError: this process is root, and the machine has neither `postgres` nor `nobody`.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise PlatformError("cannot run PostgreSQL as root: it refuses, and there is no account postgres or nobody")


def spawn(command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start a process in its own session, so that it survives its caller and its whole group can be signalled."""
    account = pwd.getpwnam(command.user) if command.user else None
    with log.open("ab") as output:
        return subprocess.Popen(
            command.arguments,
            env=base_environment() | command.environment,
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )


def run(command: Command, *, timeout_seconds: float = 120) -> str:
    """Run a command to its end and return its output.

    Raises:
        PlatformError: the command failed or took too long. The last lines of its output follow.
    """
    name = Path(command.arguments[0]).name
    account = pwd.getpwnam(command.user) if command.user else None
    try:
        done = subprocess.run(
            command.arguments,
            env=base_environment() | command.environment,
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_seconds,
            check=False,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(f"cannot run {name}: not done after {timeout_seconds:.0f} s") from None
    except OSError as error:
        raise PlatformError(f"cannot run {command.arguments[0]}: {error.strerror}") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        lines = "\n".join(output.strip().splitlines()[-10:])
        raise PlatformError(f"cannot run {name}: exit code {done.returncode}\n{lines}")
    return output


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a process and everything it started in its session. Does nothing if the group is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def end(identity: ProcessIdentity, *, number: signal.Signals = signal.SIGTERM, grace_seconds: float = 10) -> None:
    """End a process that may not be a child, with SIGKILL after the grace; return when it is gone."""
    process = identity.process()
    if process is None:
        return
    signal_group(process.pid, number)
    try:
        process.wait(grace_seconds)
    except psutil.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)
        process.wait(grace_seconds)


def last_lines(path: Path, count: int = 12, start: int = 0) -> str:
    """Return the last lines of a log, but none before byte `start`."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = path.stat().st_size
        # 16 KiB hold a dozen log lines of every server here.
        file.seek(max(start, size - 16384))
        text = file.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-count:])
