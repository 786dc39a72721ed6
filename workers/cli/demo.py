"""`lethe demo`: the main job end to end on two small models, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

command = typer.Typer(help="Run the main job end to end on two small models.", add_completion=False)


@command.command()
def demo(
    home: Annotated[
        Path, typer.Option(help="folder for its state and reports; a former demo's is removed first")
    ] = Path(".lethe/demo"),
) -> None:
    """Train two models, serve them, delete people from both through the HTTP API, verify the reports.

    Exit 0 when every report verifies and the served models no longer complete what was to be forgotten, else 1.
    """
    from workers.demo.screen import Screen
    from workers.demo.story import run

    if not run(home.absolute(), Screen()):
        raise typer.Exit(1)
