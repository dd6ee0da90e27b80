"""Print the help of `plattr` itself as `typer.rich_utils` does.

Typer's own module first imports a Markdown parser, a syntax highlighter and a traceback printer. These imports take
half of the time of `plattr --help`. A test checks that both print the same.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.theme import Theme
from typer.core import TyperGroup, TyperOption

THEME = Theme({"option": "bold cyan", "switch": "bold green", "types": "bold yellow", "types_sep": "dim"})


class _Words(RegexHighlighter):
    highlights = [  # noqa: RUF012  Rich declares it so
        r"(^|\W)(?P<switch>\-\w+)(?![a-zA-Z0-9])",
        r"(^|\W)(?P<option>\-\-[\w\-]+)(?![a-zA-Z0-9])",
        r"(?P<usage>Usage: )",
    ]


class _Types(RegexHighlighter):
    highlights = [r"^(?P<types_sep><)", r"(?P<types_sep>>)$"]  # noqa: RUF012  as above


def print_help(group: TyperGroup, ctx: Any) -> None:
    """Print the usage, the options and the commands of a group that has no arguments."""
    words, types = _Words(), _Types()
    console = Console(theme=Theme({**THEME.styles, "usage": "yellow"}), highlighter=words)
    console.print(Padding(words(group.get_usage(ctx)), 1), style="bold")
    console.print(Padding(words(group.help or ""), (0, 1, 1, 1)))
    options = Table(highlight=True, show_header=False, expand=True, box=None, pad_edge=False)
    for parameter in group.get_params(ctx):
        assert isinstance(parameter, TyperOption)  # noqa: S101  a group's callback has no arguments
        kind = Text(parameter.display_type_rich(ctx=ctx) or "", style="bold yellow", overflow="fold")
        names = (words(",".join(parameter.opts)), "", "", "")
        options.add_row(*names, types(kind), words(parameter.help or ""))
    _print_panel(console, "Options", options)
    commands = Table(show_header=False, expand=True, box=None, pad_edge=False)
    commands.add_column(style="bold cyan", no_wrap=True, width=max(map(len, group.commands)))
    commands.add_column(ratio=10)
    for name, line in _lines(group):
        commands.add_row(Text(name), words(line))
    _print_panel(console, "Commands", commands)


def _lines(group: TyperGroup) -> Iterable[tuple[str, str]]:
    return ((name, command.help or "") for name, command in group.commands.items())


def _print_panel(console: Console, title: str, table: Table) -> None:
    console.print(Panel(table, border_style="dim", title=title, title_align="left"))
