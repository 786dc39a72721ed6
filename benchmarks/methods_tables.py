"""Markdown tables of the kept results: every method on every set, what the planner comes to, and the bar."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods_names import BETWEEN, DO_NOTHING, RETRAIN
from benchmarks.methods_report import SHOWN, told_verdicts
from benchmarks.published_bar import FIGURES, SETTINGS, Published
from benchmarks.record import RESULTS

_COLUMNS = (
    "method", "loss gap p95", "median", "AUC gap", "ToW", "KLoM", "utility", "CPU / retrain", "memory / retrain",
    "in the band", "gate",
)  # fmt: skip
_OF_PLANNER = (
    "world, set",
    "seed",
    "ladder",
    "published",
    "CPU of all rungs",
    "nearer and cheaper than the first rung",
)
_OF_BAR = ("model", "loss gap p95", "median", "AUC gap", "accuracy gap", "CPU / retrain", "inside")
_OF_THE_PLANNER = ("an approximate method passed", "auto would publish", "cells of one set")

Row = Mapping[str, Any]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def measured() -> str:
    """The tables of the kept results, a section for each world and a table for each set."""
    path = RESULTS / "methods.json"
    if not path.is_file():
        return "No run for the record is kept yet: `python -m benchmarks methods`."
    kept = json.loads(path.read_text())
    lines = [_where(kept), ""]
    for world in dict.fromkeys(row["world"] for row in kept["measurements"]):
        told = kept["settings"][world]["told"]
        lines += [f"### {world}: {told}", "", f"![cost and distance](methods-{world}.svg)", ""]
        rows = [row for row in kept["measurements"] if row["world"] == world]
        for kind in dict.fromkeys(row["set"] for row in rows):
            lines += [*_of_set([row for row in rows if row["set"] == kind], kind), ""]
    return "\n".join([*lines, *_planner(kept)]).strip()


def _where(kept: Row) -> str:
    machine = kept["machine"]
    return f"Measured {kept['date'][:10]}, {machine['cpu']}, one thread, torch {machine['packages']['torch']}."


def _of_set(rows: Sequence[Row], kind: str) -> list[str]:
    figures = [row for row in rows if "p95" in row]
    first, allowed = figures[0], spread(figures[0]["band"], 2)
    told = f"{first['forgotten']} records, {first['seeds']} seeds"
    lines = [f"**{kind}**, {told}; a retrain differs from the others by at most {allowed} (95th percentile).", ""]
    leading = [row for row in figures if row["model"] in (DO_NOTHING, BETWEEN, RETRAIN)]
    others = sorted((row for row in figures if row not in leading), key=lambda row: float(row["p95"]["median"]))
    lines += table(_COLUMNS, [_line(row) for row in [*leading, *others]])
    for outcome, word in (("refused", "Refused"), ("failed", "Broken off")):
        found = [f"`{row['model']}`: {row[outcome]}" for row in rows if outcome in row]
        lines += ["", f"{word}: {'; '.join(found)}."] if found else []
    return lines


def _line(row: Row) -> list[str]:
    cells = [spread(row[name], digits) if name in row else "" for name, digits in SHOWN]
    inside = f"{row['inside']} of {row['seeds']}" if "inside" in row else ""
    name = f"`{row['model']}`" if row["kind"] else row["model"]
    return [name, *cells, inside, told_verdicts(row.get("verdicts", {}))]


def spread(found: Mapping[str, float], digits: int) -> str:
    """`median (low to high)`, or one number where all are the same."""
    middle, low, high = (f"{found[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _planner(kept: Row) -> list[str]:
    rows = []
    for one in kept["settings"]["planner"]:
        ladder, beaten = (", ".join(f"`{name}`" for name in one[key]) for key in ("rungs", "better"))
        where = f"{one['world']}, {one['set']}", str(one["seed"])
        rows.append([*where, ladder, f"`{one['published']}`", f"{one['cost']:.2f}", beaten or "none"])
    told = [note for note in kept["notes"] if any(words in note for words in _OF_THE_PLANNER)]
    notes = [f"- {note[0].upper()}{note[1:]}." for note in told]
    return ["### The planner", "", *table(_OF_PLANNER, rows), "", *notes]


def bar() -> str:
    """The bar: ours from the kept results, public implementations beside them."""
    path = RESULTS / "bar.json"
    ours: list[Row] = json.loads(path.read_text())["measurements"] if path.is_file() else []
    lines = (
        [] if ours else ["No run of `python -m benchmarks bar` for the record is kept yet; ours will stand here.", ""]
    )
    for name, published in FIGURES.items():
        own = [row for row in ours if row["set"] == name]
        rows = [_allowed(own[0]["band"])] if own else []
        rows += [_own(row) for row in own]
        rows += [_public(row, published[0].accuracy) for row in published]
        lines += [f"**{name}**", "", *table(_OF_BAR, rows), ""]
    settings = "; ".join(f"{name}: {told}" for name, told in SETTINGS.items())
    return "\n".join([*lines, f"Settings of the public implementations: {settings}."])


def _allowed(band: Mapping[str, float]) -> list[str]:
    cells = [f"{band['p95']:.2f}", "", f"{band['auc']:.3f}", f"{band['accuracy']:.4f}"]
    return ["ours: a retrain from the others, at most", *cells, "", ""]


def _own(row: Row) -> list[str]:
    inside = ", ".join(name for name, value in row["inside"].items() if value) or "none"
    told = "all three" if all(row["inside"].values()) else inside
    cells = [f"{row['p95']:.2f}", f"{row['median']:.2f}", f"{row['auc']:+.3f}", f"{row['accuracy']:+.4f}"]
    return [f"ours: {row['model']}", *cells, f"{row['cost']:.2f}", told]


def _public(row: Published, retrain: float) -> list[str]:
    cells = [f"{row.p95:.2f}", f"{row.median:.2f}", f"{row.auc:+.3f}", f"{row.accuracy - retrain:+.3f}"]
    return [f"public: {row.model}", *cells, f"{row.cost:.2f}", ""]
