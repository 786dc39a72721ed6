"""How commands print: tables for people, JSON for machines."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from service.errors import BadParameters

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """Columns as wide as their content, no wrapping: what is printed can be cut and grepped."""
    if not rows:
        typer.echo(empty)
        return
    cells = [[_cell(value) for value in row] for row in [headers, *rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(headers))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)


def parse_span(text: str) -> timedelta:
    """A span such as 12h, 90d or 2w. Raises BadParameters."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and unit in _UNITS) or not 1 <= int(number) <= 100_000:
        raise BadParameters(f"{text!r} is not a span of time; write it like 12h, 90d or 2w")
    return timedelta(**{_UNITS[unit]: int(number)})
