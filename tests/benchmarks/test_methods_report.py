"""The table of methods from made-up cells: spreads over seeds, refusals, the planner's share."""

import json
from pathlib import Path
from typing import Any

from benchmarks.methods_names import BETWEEN, DO_NOTHING, RETRAIN
from benchmarks.methods_plot import draw
from benchmarks.methods_report import COLUMNS, FIGURES, grouped, summary, tell, told_verdicts
from benchmarks.record import Result


def cell(seed: int, p95: float, verdict: str) -> dict[str, Any]:
    figures = dict.fromkeys(FIGURES, 0.5)

    def row(model: str, cpu: float | None, gap: float, said: str) -> dict[str, Any]:
        cost = {} if cpu is None else {"cpu_seconds": cpu, "peak_memory_bytes": 100}
        return {"model": model, **figures, "p95": gap, "verdict": said, "inside": {"p95": gap < 1}, **cost}

    rows = [row(DO_NOTHING, None, 3.0, "fail"), row(BETWEEN, None, 0.5, ""), row(RETRAIN, 10.0, 0.6, "pass")]
    rows += [row("nabla_tau", 2.0, p95, verdict), row("finetune", 1.0, 2.5, "fail")]
    retrain = [{"cpu_seconds": 10.0, "peak_memory_bytes": 100}] * 2
    rungs = [{"method": "nabla_tau", "kind": "approximate"}, {"method": RETRAIN, "kind": "exact"}]
    return {
        "world": "made", "set": "few", "seed": seed, "forgotten": 7, "band": {"p95": 0.8}, "retrain": retrain,
        "plan": {"rungs": rungs, "why": "so"}, "rows": rows, "refused": {"sharded": "needs parts"}, "failed": {},
    }  # fmt: skip


CELLS = [cell(0, 1.0, "pass"), cell(1, 2.0, "inconclusive"), cell(2, 4.0, "fail")]


def test_spreads_are_over_seeds() -> None:
    found = summary(CELLS, "nabla_tau")
    assert (found["p95"].median, found["p95"].low, found["p95"].high) == (2.0, 1.0, 4.0)
    assert found["cost"].median == 0.2
    assert (found["seeds"], found["inside"]) == (3, 0)
    assert told_verdicts(found["verdicts"]) == "1 pass, 1 inconclusive, 1 fail"
    assert "cost" not in summary(CELLS, DO_NOTHING)


def test_the_result_tells_front_passes_and_refusals() -> None:
    result = Result("methods", "?", 1, COLUMNS)
    tell(result, CELLS)
    # In the last cell fine-tuning is both cheaper and nearer than the first rung.
    assert [target.value for target in result.targets] == [2 / 3]
    assert [one["published"] for one in result.settings["planner"]] == ["nabla_tau", RETRAIN, RETRAIN]
    assert [round(one["cost"], 2) for one in result.settings["planner"]] == [0.2, 1.2, 1.2]
    assert result.settings["approximate_passed"] == 1 / 3
    assert "made, few: sharded was refused: needs parts" in result.notes
    assert len(result.rows) == 1 + 5
    assert all(len(row) == len(COLUMNS) for row in result.rows[1:])


def test_cells_are_grouped_by_world_and_set() -> None:
    assert {key: len(group) for key, group in grouped(CELLS).items()} == {("made", "few"): 3}


def test_every_method_is_in_the_plot(tmp_path: Path) -> None:
    result = Result("methods", "?", 1, COLUMNS)
    tell(result, CELLS)
    path = result.write(tmp_path)
    draw(json.loads(path.read_text())["measurements"], "made", tmp_path / "made.svg")
    drawn = (tmp_path / "made.svg").read_text()
    assert all(f">{name}<" in drawn for name in ("nabla_tau", "finetune", RETRAIN, DO_NOTHING))
