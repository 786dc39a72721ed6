"""The front by hand, and what a ladder comes to in a made-up cell."""

from typing import Any

import pytest

from benchmarks.methods_front import Point, better, climbed, cost_of, memory_of, passing, points
from benchmarks.methods_names import BETWEEN, DO_NOTHING, ORACLE


def row(model: str, cpu: float, p95: float, verdict: str = "fail") -> dict[str, Any]:
    return {"model": model, "cpu_seconds": cpu, "peak_memory_bytes": 50, "p95": p95, "verdict": verdict}


def cell(*rows: dict[str, Any], rungs: list[tuple[str, str]]) -> dict[str, Any]:
    retrain = [{"cpu_seconds": 8.0, "peak_memory_bytes": 100}, {"cpu_seconds": 12.0, "peak_memory_bytes": 100}]
    plan = {"rungs": [{"method": name, "kind": kind} for name, kind in rungs], "why": ""}
    nothing = {"model": DO_NOTHING, "p95": 3.0, "verdict": "fail"}
    floor = {"model": BETWEEN, "p95": 0.5, "verdict": ""}
    return {"rows": [nothing, floor, *rows], "retrain": retrain, "plan": plan, "band": {"p95": 0.8}}


def test_only_what_is_cheaper_and_nearer_is_better() -> None:
    choice = Point("a", 0.2, 1.0)
    others = [
        choice,
        Point("cheap", 0.1, 2.0),
        Point("near", 0.4, 0.5),
        Point("both", 0.1, 0.9),
        Point("tie", 0.2, 0.9),
    ]
    assert better(choice, others) == ["both"]


def test_below_the_floor_nothing_is_nearer() -> None:
    choice, other = Point("retrain", 1.0, 0.7), Point("lucky", 0.1, 0.4)
    assert better(choice, [choice, other]) == ["lucky"]
    assert better(choice, [choice, other], floor=0.8) == []
    assert better(choice, [choice, other], floor=0.5) == ["lucky"]


def test_costs_are_shares_of_the_mean_of_both_retrains() -> None:
    made = cell(row("a", 2.0, 1.0), rungs=[("a", "approximate")])
    assert cost_of(made, made["rows"][-1]) == pytest.approx(0.2)
    assert memory_of(made, made["rows"][-1]) == pytest.approx(0.5)
    assert cost_of(made, made["rows"][0]) == 0


def test_rows_that_nobody_can_choose_are_no_points() -> None:
    made = cell(row("a", 2.0, 1.0), row(ORACLE, 0.1, 0.1), rungs=[("a", "approximate")])
    assert [one.method for one in points(made)] == ["a"]


def test_a_ladder_goes_on_to_the_first_that_passes_and_pays_for_all() -> None:
    rungs = [("a", "approximate"), ("gone", "approximate"), ("b", "approximate"), ("retrain", "exact")]
    rows = [
        row("a", 2.0, 1.0),
        row("b", 3.0, 0.9, "inconclusive"),
        row("retrain", 10.0, 0.6),
        row("c", 1.0, 0.9, "pass"),
    ]
    found = climbed(cell(*rows, rungs=rungs))
    assert (found.choice, found.published) == ("a", "retrain")
    assert found.cost == pytest.approx(1.5)
    assert found.better == ["c"]
    rows[0]["verdict"] = "pass"
    found = climbed(cell(*rows, rungs=rungs))
    assert (found.published, found.cost) == ("a", pytest.approx(0.2))


def test_the_cheapest_approximate_pass_is_told_and_no_other() -> None:
    rows = [
        row("a", 2.0, 1.0, "pass"),
        row("b", 1.0, 1.0, "pass"),
        row("retrain", 0.5, 1.0, "pass"),
        row("c", 0.1, 1.0),
    ]
    made = cell(*rows, rungs=[("a", "approximate")])
    found = passing(made, ["a", "b", "c"])
    assert found is not None
    assert found.method == "b"
    assert passing(made, ["c"]) is None
