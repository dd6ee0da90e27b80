"""Run one pinned tool: `python -m stack.tools vale README.md`. The first use downloads or builds it."""

import os
import sys
from pathlib import Path

from stack.errors import PlatformError
from stack.tools.resolve import Resolver

# No platform is started, so PATH holds no folder of links that must be skipped.
NO_LINKS = Path("/nonexistent")


def main() -> None:
    """Replace this process by the tool that the first argument names.

    Raises:
        SystemExit: the tool is not available. The message says what to install or to set.
    """
    name, *arguments = sys.argv[1:]
    try:
        tool = Resolver(exclude=NO_LINKS, tell=_tell).resolve(name)
    except PlatformError as error:
        raise SystemExit(str(error)) from error
    os.execv(tool, [name, *arguments])  # noqa: S606


def _tell(line: str) -> None:
    # stdout is for the output of the tool.
    print(line, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
