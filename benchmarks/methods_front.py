"""The cost-quality front of a cell, and what the planner's ladder comes to there. Pure: figures in, figures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.methods_names import BETWEEN, DO_NOTHING, ORACLE

NO_METHODS = (DO_NOTHING, BETWEEN, ORACLE)
"""Rows that no planner can choose: the oracle needs a retrained model."""


@dataclass(frozen=True)
class Point:
    """One method in one cell: its cost as a share of a retrain, its per-record distance from retrains (p95, nats)."""

    method: str
    cost: float
    distance: float


def better(choice: Point, others: Sequence[Point], floor: float = 0.0) -> list[str]:
    """Methods that are both cheaper and nearer than the choice; none where it lies on the front.

    `floor`: the distance of retrains among themselves. What lies below it counts as lying on it: to be nearer to the
    mean of some retrains than a retrain is no merit.
    """
    near = max(choice.distance, floor)
    return [one.method for one in others if one.cost < choice.cost and max(one.distance, floor) < near]


def points(cell: Mapping[str, Any]) -> list[Point]:
    """The methods of a measured cell."""
    return [
        Point(row["model"], cost_of(cell, row), row["p95"]) for row in cell["rows"] if row["model"] not in NO_METHODS
    ]


def cost_of(cell: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """CPU seconds of an attempt over those of the retrains of the cell, before and after; 0 for doing nothing."""
    return float(row.get("cpu_seconds", 0.0) / _mean(cell, "cpu_seconds"))


def memory_of(cell: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """The same of the peak of resident memory."""
    return float(row.get("peak_memory_bytes", 0.0) / _mean(cell, "peak_memory_bytes"))


def _mean(cell: Mapping[str, Any], name: str) -> float:
    values = [float(one[name]) for one in cell["retrain"]]
    return sum(values) / len(values)


@dataclass(frozen=True)
class Climbed:
    """What the planner's ladder comes to in a cell: its first rung, what would be published, and at what cost."""

    choice: str
    published: str
    cost: float
    better: list[str]
    better_than_noise: list[str]


def climbed(cell: Mapping[str, Any]) -> Climbed:
    """Climb with the verdicts of the cell: approximate rungs pass by measurement, exact ones by procedure.

    A rung that was refused or failed costs nothing here: it ended before any work, or its cost was not kept.
    """
    known = {row["model"]: row for row in cell["rows"]}
    rungs = cell["plan"]["rungs"]
    cost, published = 0.0, "nothing"
    for rung in rungs:
        row = known.get(rung["method"])
        if row is None:
            continue
        cost += cost_of(cell, row)
        if rung["kind"] == "exact" or row["verdict"] == "pass":
            published = rung["method"]
            break
    every = points(cell)
    first = next((one for rung in rungs for one in every if one.method == rung["method"]), None)
    if first is None:
        return Climbed("nothing", published, cost, [], [])
    return Climbed(first.method, published, cost, better(first, every), better(first, every, cell["band"]["p95"]))


def passing(cell: Mapping[str, Any], approximate: Sequence[str]) -> Point | None:
    """The cheapest approximate method that passed the gate in a cell; None where none did."""
    passed = {row["model"] for row in cell["rows"] if row["verdict"] == "pass"}
    found = [one for one in points(cell) if one.method in passed and one.method in approximate]
    return min(found, key=lambda one: one.cost, default=None)
