"""Programs from Debian's packages, unpacked beside the system and not installed into it: no rights are needed."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stack.errors import PlatformError
from stack.tools.build import require_program

# The index of Debian's main part is 9 MB; a hung mirror must end some time.
FETCH_SECONDS = 300


def unpack_packages(names: Sequence[str], home: Path, *, purpose: str, remedy: str) -> None:
    """Fetch packages with apt, which verifies them by the distribution's signatures, and unpack them into `home`.

    Raises:
        PlatformError: this is no Debian, or a package cannot be had; says what to do instead.
    """
    for program in ("apt-get", "dpkg"):
        require_program(program, purpose, remedy)
    packages = home.with_name(f"{home.name}.packages")
    packages.mkdir()
    # Which lists of packages the system has, if any, depends on the machine; ours are made when those do not do.
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
    """Return where a program that was unpacked finds the libraries that were unpacked with it."""
    usr = program.resolve().parent.parent
    return os.pathsep.join(str(folder) for folder in sorted(usr.glob("lib/*-linux-gnu*")))


# As root apt drops its rights, to an account that cannot write into our folder; it then only warns.
_AS_OURSELVES = ("-q", "-o", "APT::Sandbox::User=root")


def _own_lists(folder: Path) -> list[str]:
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    return ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]


def _run(arguments: list[str], folder: Path) -> str | None:
    """Run it; return why it failed, None when it did not."""
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
