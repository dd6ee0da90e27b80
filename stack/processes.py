"""Processes of the operating system: started apart from their parent, known again without doubt."""

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
    """What to run: program, environment (complete, nothing is inherited), folder, and as which user."""

    model_config = ConfigDict(frozen=True)

    arguments: tuple[str, ...]
    environment: dict[str, str] = {}
    folder: Path = Path("/")
    user: str | None = None


class ProcessIdentity(BaseModel):
    """One process: its number alone may belong to another process after a reboot."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float
    command: str

    @classmethod
    def of(cls, pid: int, command: str) -> "ProcessIdentity":
        """Describe a running process.

        Raises:
            psutil.NoSuchProcess: it is gone already.
        """
        return cls(pid=pid, created=psutil.Process(pid).create_time(), command=command)

    @classmethod
    def read(cls, path: Path) -> "ProcessIdentity | None":
        """Read what `write` left, if anything."""
        return cls.model_validate_json(path.read_text()) if path.exists() else None

    def process(self) -> psutil.Process | None:
        """Return the process if it still lives and is the one described, zombies excluded."""
        try:
            process = psutil.Process(self.pid)
            # Two seconds: the start time is derived from the boot time, which moves with the clock.
            if abs(process.create_time() - self.created) > 2 or process.status() == psutil.STATUS_ZOMBIE:
                return None
            # Servers rename themselves, PostgreSQL does; the executable's name remains in the first word.
            first = Path((process.cmdline() or [""])[0].split(" ")[0].rstrip(":")).name
        except psutil.NoSuchProcess:
            return None
        return process if first in {Path(self.command).name, "sh"} else None


def base_environment() -> dict[str, str]:
    """Return what every child gets of our own environment: no credentials, no proxies, no PG* or AWS_*."""
    names = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "JAVA_HOME", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in names if name in os.environ}


def unprivileged_user() -> str | None:
    """Return the account a server that refuses root has to run as; None if we are not root.

    Raises:
        PlatformError: we are root and the machine has neither `postgres` nor `nobody`.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise PlatformError("cannot run PostgreSQL as root: it refuses, and there is no account postgres or nobody")


def spawn(command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that it outlives us and its whole group can be signalled."""
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
        PlatformError: it failed or took too long; the last lines of its output follow.
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
    """Signal a process and all it started in its session; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def end(identity: ProcessIdentity, *, number: signal.Signals = signal.SIGTERM, grace_seconds: float = 10) -> None:
    """End a process that is not our child, with SIGKILL after the grace; returns when it is gone."""
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
    """Return the last lines of a log, looking no further back than byte `start`."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = path.stat().st_size
        # 16 KiB hold a dozen lines of any server here.
        file.seek(max(start, size - 16384))
        text = file.read().decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-count:])
