"""Pieces of the document that both templates know: blocks, by `kind`, and cells.

A block is a dictionary of kind text, list, facts, table or figure. A cell is a string, or {"mono": digest}, or
{"verdict": pass | fail | inconclusive | info}.
"""

from collections.abc import Sequence
from typing import Any

from service.reports.schema import PlotPart

Block = dict[str, Any]
Cell = str | dict[str, str]


def mono(text: str | None) -> Cell:
    """A digest or other literal; a dash for none."""
    return {"mono": text} if text else "–"


def text(words: str) -> Block:
    """A paragraph."""
    return {"kind": "text", "text": words}


def bullets(items: Sequence[str]) -> Block:
    """A list of sentences."""
    return {"kind": "list", "items": list(items)}


def facts(rows: list[list[Cell]]) -> Block:
    """Names and values."""
    return {"kind": "facts", "rows": rows}


def table(head: list[str], rows: list[list[Cell]], align: str, *, grow: int = 0, wide: bool = False) -> Block:
    """A table; `align` has l or r for each column, the column `grow` takes the space that is left."""
    return {"kind": "table", "head": head, "rows": rows, "align": align, "grow": grow, "wide": wide}


def figures(plots: Sequence[PlotPart], *names: str, floating: bool = False) -> list[Block]:
    """The figures of these names, in their order, or all; on paper `floating` ones may move within their section."""
    chosen = [plot for name in names for plot in plots if plot.name.rpartition("/")[2] == name] if names else plots
    return [
        {"kind": "figure", "name": plot.name, "title": plot.title, "caption": plot.caption, "alt": plot.alt}
        | {"floating": floating}
        for plot in chosen
    ]


def sentence(words: str) -> str:
    """Closed by a full stop."""
    words = words.strip()
    return words if words.endswith((".", "!", "?")) else words + "."
