"""The lines that a command writes."""

import sys
from pathlib import Path

from plattr.denials import printable


def say(text: str) -> None:
    """Write one line to the standard output at once, also into a pipe; a terminal's commands become blanks."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line to the standard error; line breaks and a terminal's commands become blanks."""
    sys.stderr.write(" ".join(printable(text).split()) + "\n")


def command() -> str:
    """Return how this very program is called from the present folder, also when it is not on the PATH."""
    program = Path(sys.argv[0]).absolute()
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else "plattr"
