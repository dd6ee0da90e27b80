"""Run the supervisor, or print the platform's settings for scripts: `python -m stack environment`."""

import shlex
import sys
from pathlib import Path

from stack.folders import Folders
from stack.platform import Platform
from stack.supervisor import Supervisor

USAGE = "usage: python -m stack supervise STATE | environment [worker|watcher|cli]\n"


def main(arguments: list[str]) -> int:
    """Run one of the two commands; return the exit code."""
    match arguments:
        case ["supervise", state]:
            return Supervisor(Folders(state=Path(state))).run()
        case ["environment", *roles] if len(roles) <= 1:
            platform = Platform()
            for name, value in platform.environment(*roles).items():
                sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
            return 0
        case _:
            sys.stderr.write(USAGE)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
