"""Options that several commands share."""

import re
from datetime import timedelta
from typing import Annotated

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600}

Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", help="The object's namespace. Default: the namespace of the kubeconfig's context."
    ),
]
Name = Annotated[str, typer.Argument(help="The object: NAME, app/NAME or preview/NAME.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, and print each step.")]


def parse_duration(text: str | timedelta) -> timedelta:
    """Return the duration of `90`, `90s`, `5m` or `1h`. Typer also passes the default through this function.

    Raises:
        typer.BadParameter: the text is not a duration.
    """
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"([0-9]{1,6})(s|m|h)?", text)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 5m or 1h")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2] or "s"])


# 5 minutes: a new Application takes seconds, but a slow image pull can take minutes.
DEFAULT_TIMEOUT = timedelta(minutes=5)
Timeout = Annotated[
    timedelta,
    typer.Option(
        parser=parse_duration,
        metavar="DURATION",
        help="How long to wait: 90s, 5m, 1h. After that the exit code is 3.",
        show_default="5m",
    ),
]
