"""Programs from Debian's packages, unpacked beside the system and not installed into it. This needs no rights."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stack.errors import PlatformError
from stack.tools.build import require_program

# The index of Debian's main part is 9 MB. The limit ends a fetch from a mirror that hangs.
FETCH_SECONDS = 300


def unpack_packages(names: Sequence[str], home: Path, *, purpose: str, remedy: str) -> None:
    """Fetch packages with apt, which verifies the distribution's signatures, and unpack them into `home`.

    Raises:
        PlatformError: this is not Debian, or a package is not available. Says what to do instead.
    """
    for program in ("apt-get", "dpkg"):
        require_program(program, purpose, remedy)
    packages = home.with_name(f"{home.name}.packages")
    packages.mkdir()
    # Which package lists a system has depends on the machine. Own lists are fetched if the system's are not enough.
    own = _own_lists(packages / "apt")
    if _run(["apt-get", *_AS_OURSELVES, "download", *names], packages) is not None:
        failure = _run(["apt-get", *_AS_OURSELVES, *own, "update"], packages) or _run(
            ["apt-get", *_AS_OURSELVES, *own, "download", *names], packages
        )
        if failure is not None:
            raise PlatformError(f"cannot {purpose} from Debian's packages: {failure}; {remedy}")
    for package in sorted(packages.glob("*.deb")):
        failure = _run(["dpkg", "-x", str(package), str(home)], packages)
        if failure is not None:
            raise PlatformError(f"cannot {purpose} from {package.name}: {failure}; {remedy}")


def library_path(program: Path) -> str:
    """Return the folders in which an unpacked program finds the libraries that were unpacked with it."""
    usr = program.resolve().parent.parent
    return os.pathsep.join(str(folder) for folder in sorted(usr.glob("lib/*-linux-gnu*")))


# As root, apt would change to an account that cannot write into the target folder. It would then only warn.
# With this option it stays root from the start.
_AS_OURSELVES = ("-q", "-o", "APT::Sandbox::User=root")


def _own_lists(folder: Path) -> list[str]:
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    return ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]


def _run(arguments: list[str], folder: Path) -> str | None:
    """Run a command; return why it failed, or None if it succeeded."""
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{arguments[0]} was not done after {FETCH_SECONDS} s"
    if done.returncode == 0:
        return None
    return (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
