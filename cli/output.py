"""Write the lines that a command prints."""

import sys
from pathlib import Path

from plattr.denials import printable


def say(text: str) -> None:
    """Write one line to the standard output at once, also into a pipe. Terminal control characters become blanks."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line to the standard error. Line breaks and terminal control characters become blanks."""
    sys.stderr.write(" ".join(printable(text).split()) + "\n")


def command() -> str:
    """Return how to call this program from the current folder, even if it is not on the PATH."""
    program = Path(sys.argv[0]).absolute()
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else "plattr"
