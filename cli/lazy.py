"""Commands whose modules are imported only when called: `plattr --help` lists all of them and imports none."""

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from cli.output import complain


class LazyCommand(TyperCommand):
    """A command or group: its name, its line in the help, and where it is defined."""

    def __init__(self, name: str, help_line: str, *, target: str = "", extra: str = "") -> None:
        """Describe a command.

        Args:
            name: the name of the command.
            help_line: the first line of the function's docstring, or the group's help. A test compares the two.
            target: `module:function`, or `module:app` of a group. Default: the function and module of this name.
            extra: the extra of the package that the module needs, if any.
        """
        super().__init__(name, help=help_line)
        self._target = target or f"cli.{name}:{name}"
        self._extra = extra

    def load(self) -> TyperCommand | TyperGroup:
        """Import the command.

        Raises:
            typer.Exit: a package that the module needs is not installed. A printed line says which.
        """
        module, _, attribute = self._target.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if not self._extra:
                raise
            complain(
                f"cannot run plattr {self.name}: Python has no module {error.name!r}; install plattr[{self._extra}],"
                " or run make setup in a checkout"
            )
            raise typer.Exit(1) from None
        if isinstance(found, typer.Typer):
            found.info.name = self.name
            return get_group(found)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(self.name)(found)
        command = get_command(single)
        assert isinstance(command, TyperCommand)  # noqa: S101  one command and no callback
        return command


class LazyGroup(TyperGroup):
    """A group that lists its commands from their descriptions, and loads only the one that is called."""

    COMMANDS: ClassVar[tuple[LazyCommand, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update({str(command.name): command for command in self.COMMANDS})

    # Any, because Typer's copy of Click's Context has no public name.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name, after its import."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def format_help(self, ctx: Any, *_formatter: Any) -> None:
        """Print the help as Typer does, but without Typer's imports. Rich formats it."""
        from cli.help import print_help

        print_help(self, ctx)
