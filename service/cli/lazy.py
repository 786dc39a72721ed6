"""A command group whose commands are imported when they are called, and not to list them."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command as build

from service.errors import BadParameters

ENTRY_POINTS = "lethe.commands"

_COMPLETION = ("install_completion", "show_completion")


class Lazy(NamedTuple):
    """Where a command lives, "module:attribute" or "entry:NAME" for one of the worker package, and its help."""

    target: str
    help: str


class LazyGroup(TyperGroup):
    """Set `table` in a subclass; commands added in the usual way work beside it."""

    table: ClassVar[dict[str, Lazy]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Every name, in the order of the table."""
        return [*super().list_commands(ctx), *self.table]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that only knows its help, for listings."""
        if cmd_name in self.table:
            return TyperCommand(name=cmd_name, help=self.table[cmd_name].help)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.table:
            command = load(name, self.table[name])
        return name, command, rest


def load(name: str, lazy: Lazy) -> Any:
    """Import a command. Raises BadParameters when it needs the worker package and that is not installed."""
    if lazy.target.startswith("entry:"):
        wanted = lazy.target.removeprefix("entry:")
        found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == wanted]
        if not found:
            raise BadParameters(f"`lethe {name}` needs the worker package; install lethe[worker]")
        command = found[0].load()
    else:
        module, _, attribute = lazy.target.partition(":")
        command = getattr(import_module(module), attribute)
    command = build(command) if isinstance(command, typer.Typer) else command
    command.name = name
    # Typer gives every application its own completion options; as a sub-command it has no use for them.
    command.params = [option for option in command.params if option.name not in _COMPLETION]
    return command
