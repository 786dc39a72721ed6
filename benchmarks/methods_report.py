"""From measured cells to the table of methods: medians and ranges over seeds, the front, what the gate passed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.methods_front import Climbed, climbed, cost_of, memory_of, passing
from benchmarks.methods_names import BETWEEN, DO_NOTHING, RETRAIN
from benchmarks.record import Result, Spread, Target
from service.catalogue.methods import METHODS

COLUMNS = (
    "world, set, model", "loss gap p95", "median", "AUC gap", "ToW", "KLoM", "utility", "CPU / retrain",
    "memory / retrain", "in the band", "gate",
)  # fmt: skip
WANTED = 0.9
"""Of the cells the planner's choice should lie on the front in."""
FIGURES = ("p95", "median", "auc", "accuracy", "tow", "klom", "klom_p95", "utility")
SHOWN = (("p95", 2), ("median", 2), ("auc", 3), ("tow", 2), ("klom", 2), ("utility", 3), ("cost", 2), ("memory", 2))
_KINDS = {spec.name: spec.kind for spec in METHODS}
_FIRST = (DO_NOTHING, BETWEEN, RETRAIN)

Cell = Mapping[str, Any]


def tell(result: Result, cells: Sequence[Cell]) -> None:
    """Fill in rows, measurements, targets and notes."""
    for (world, kind), group in grouped(cells).items():
        _group(result, world, kind, group)
    climbs = [(cell, climbed(cell)) for cell in cells]
    result.settings["planner"] = [_climb(cell, each) for cell, each in climbs]
    on_front = sum(not each.better for _, each in climbs) / len(climbs)
    beyond_noise = sum(not each.better_than_noise for _, each in climbs) / len(climbs)
    result.targets.append(Target("cells where the planner's choice lies on the front", on_front, WANTED, at_most=False))
    result.notes.append(
        f"{len(climbs)} cells of one set and one seed: the first rung of auto lies on the front in {on_front:.0%}; in "
        f"{beyond_noise:.0%} where a distance below that of retrains among themselves counts as theirs"
    )
    _passed(result, climbs)
    result.notes.append(
        "loss gap: |loss - mean of the retrains| by forgotten record, nats (a token for language models); AUC gap: of "
        "the loss attack; KLoM: Gaussian form, median over records; utility: test accuracy, or the loss on retained "
        "records of a language model; memory: peak of resident memory, interpreter and libraries included"
    )


def grouped(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """(world, set) -> its cells, one a seed."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell["world"], cell["set"]), []).append(cell)
    return found


def _group(result: Result, world: str, kind: str, cells: Sequence[Cell]) -> None:
    size = cells[0]["forgotten"]
    within = Spread.of([cell["band"]["p95"] for cell in cells])
    result.rows.append([f"[bold]{world}, {kind}[/bold] ({size})", within.text(2), *[""] * 9])
    models = dict.fromkeys(row["model"] for cell in cells for row in cell["rows"])
    for model in sorted(models, key=lambda name: (name not in _FIRST, list(models).index(name))):
        found = summary(cells, model)
        result.measurements.append({"world": world, "set": kind, "forgotten": size, "band": within} | found)
        result.rows.append(_row(found))
    for outcome, told_as in (("refused", "was refused"), ("failed", "broke off")):
        for model, reason in {name: why for cell in cells for name, why in cell[outcome].items()}.items():
            seeds = sum(model in cell[outcome] for cell in cells)
            told = {"world": world, "set": kind, "model": model, outcome: reason, "seeds": seeds}
            result.measurements.append(told)
            result.notes.append(f"{world}, {kind}: {model} {told_as}: {reason}")


def summary(cells: Sequence[Cell], model: str) -> dict[str, Any]:
    """One model over the seeds of a set: the spread of each figure, and how often which verdict was given."""
    pairs = [(cell, row) for cell in cells for row in cell["rows"] if row["model"] == model]

    def spread(of: Callable[[Cell, Cell], float]) -> Spread:
        return Spread.of([of(cell, row) for cell, row in pairs])

    found: dict[str, Any] = {"model": model, "kind": _KINDS.get(model, ""), "seeds": len(pairs)}
    for name in FIGURES:
        found[name] = Spread.of([row[name] for _, row in pairs])
    if model == BETWEEN:
        return found
    found["verdicts"] = dict(Counter(row["verdict"] for _, row in pairs))
    found["inside"] = sum(all(row["inside"].values()) for _, row in pairs)
    if model != DO_NOTHING:
        found |= {"cost": spread(cost_of), "memory": spread(memory_of)}
    return found


def _row(found: Mapping[str, Any]) -> list[str]:
    figures = (
        ("p95", 2),
        ("median", 2),
        ("auc", 3),
        ("tow", 2),
        ("klom", 2),
        ("utility", 3),
        ("cost", 2),
        ("memory", 2),
    )
    cells = [found[name].text(digits) if name in found else "" for name, digits in figures]
    inside = f"{found['inside']} of {found['seeds']}" if "inside" in found else ""
    return [f"  {found['model']}", *cells, inside, told_verdicts(found.get("verdicts", {}))]


def told_verdicts(verdicts: Mapping[str, int]) -> str:
    """Such as "2 pass, 1 fail"."""
    order = ("pass", "inconclusive", "fail")
    return ", ".join(f"{verdicts[name]} {name}" for name in order if verdicts.get(name))


def _climb(cell: Cell, found: Climbed) -> dict[str, Any]:
    where = {name: cell[name] for name in ("world", "set", "seed")}
    rungs = [rung["method"] for rung in cell["plan"]["rungs"]]
    return where | {"rungs": rungs, "why": cell["plan"]["why"]} | vars(found)


def _passed(result: Result, climbs: Sequence[tuple[Cell, Climbed]]) -> None:
    """In how many cells an approximate method passed, and what the ladder came to."""
    approximate = [name for name, kind in _KINDS.items() if kind == "approximate"]
    found = [passing(cell, approximate) for cell, _ in climbs]
    costs = [one.cost for one in found if one is not None]
    share = len(costs) / len(climbs)
    told = f", the cheapest of them at {Spread.of(costs).text(2)} of a retrain's CPU" if costs else ""
    result.notes.append(f"an approximate method passed the gate by measurement in {share:.0%} of the cells{told}")
    published = [each for _, each in climbs if each.published in approximate]
    spent = Spread.of([each.cost for _, each in climbs]).text(2)
    result.notes.append(
        f"auto would publish an approximate version in {len(published) / len(climbs):.0%} of the cells; all rungs that "
        f"it tries on its way cost {spent} of a retrain's CPU"
    )
    result.settings |= {"approximate_passed": share, "approximate_published": len(published) / len(climbs)}
