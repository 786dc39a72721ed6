"""R5, RUM (2406.01257): "forgetting is harder the more was memorised and the more entangled it is; refining helps".

Noisy digits, memorization from 64 models of half the records, as in `reproduce-r6`. Fifty records of least, of middle
(nearest to 0.5) and of most memorization, and fifty far from, at the middle of and near the centre of the embeddings;
tug of war against three retrains each. The union of the first three is forgotten at once, and refined by RUM.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import environment
from benchmarks.record import Result, Spread, Target
from benchmarks.reference_figures import members_table
from benchmarks.reproduce_world import (
    DO_NOTHING,
    ONE_THREAD,
    OUT,
    RETRAIN,
    Lab,
    digits_lab,
    numbers,
    outcome,
)
from service.catalogue.families.baselines import FinetuneParams
from service.catalogue.families.references import RumParams
from service.verification.statistics import NotMeasurable
from workers.methods.rum import difficulty
from workers.metrics.entanglement import entanglement
from workers.metrics.tug_of_war import Levels, tow
from workers.modeling.editing import Edit
from workers.modeling.heads import all_record_inputs
from workers.references.layout import Pool
from workers.references.tables import load_side

MODELS, SHORT_MODELS, SIZE, RETRAINS = 64, 16, 50, 3
SEEDS = (0, 1, 2, 3, 4)
NEGATIVE = "negative_gradient_plus"
METHODS: dict[str, dict[str, Any]] = {"finetune": {}, NEGATIVE: {}, "salun": {"bound": "none"}}
REFINED = "rum, NegGrad+ throughout"
UNION: dict[str, tuple[str, dict[str, Any]]] = {
    NEGATIVE: (NEGATIVE, {}),
    REFINED: ("rum", {"low": NEGATIVE, "middle": NEGATIVE, "high": NEGATIVE}),
    "rum, our default": ("rum", {}),
}
FAMILIES = ("memorization", "entanglement")
STRATA = ("low", "middle", "high")
COLUMNS = ("forget set, model", "tug of war", "forgotten", "kept", "held out", "log ES")


def run(quick: bool = False) -> Result:
    """Train what is missing and measure; `quick` takes 16 half-data models and one seed."""
    seeds = SEEDS[:1] if quick else SEEDS
    with environment(LETHE_HOME=str(OUT), **ONE_THREAD):
        lab = digits_lab(quick)
        pool = lab.pool(SHORT_MODELS if quick else MODELS)
        result = Result("reproduce-r5", "R5: RUM on digits with 15 % wrong labels", len(seeds), COLUMNS)
        strata = _strata(lab, pool)
        for family in FAMILIES:
            for level in STRATA:
                chosen = {name: (name, params) for name, params in METHODS.items()}
                _measure(result, lab, pool, f"{family} {level}", strata[family][level], chosen, seeds[:3])
        union = sorted({name for ids in strata[FAMILIES[0]].values() for name in ids})
        _measure(result, lab, pool, "all three strata", union, UNION, seeds)
    _conclude(result)
    result.settings["half_data_models"] = pool.facts.count
    return result


def memorization(lab: Lab, pool: Pool) -> NDArray[np.float64]:
    """Of each training record [N], from all models of the pool."""
    return members_table(pool, range(pool.facts.count // 2)).memorization(lab.train.ids)


def _strata(lab: Lab, pool: Pool) -> dict[str, dict[str, list[str]]]:
    """Family -> level -> ids."""
    ids, memorized = np.array(lab.train.ids.tolist()), memorization(lab, pool)
    half = lab.problem(lab.served(0), ids[::2].tolist()), lab.problem(lab.served(0), ids[1::2].tolist())
    near = np.empty(len(ids))
    for start, problem in enumerate(half):  # each half as seen from the centre of the other
        near[start::2] = difficulty(problem, RumParams(refine_by="entanglement"), lab.context)
    middle = {"memorization": np.abs(memorized - 0.5), "entanglement": np.abs(near - np.median(near))}
    found: dict[str, dict[str, list[str]]] = {}
    for family, values in (("memorization", memorized), ("entanglement", near)):
        order = np.argsort(values, kind="stable")
        between = np.argsort(middle[family], kind="stable")
        outer = set(order[:SIZE].tolist()) | set(order[-SIZE:].tolist())
        rows = {"low": order[:SIZE], "middle": between[~np.isin(between, list(outer))][:SIZE], "high": order[-SIZE:]}
        found[family] = {level: sorted(ids[at].tolist()) for level, at in rows.items()}
    return found


def _measure(
    result: Result,
    lab: Lab,
    pool: Pool,
    name: str,
    ids: list[str],
    methods: dict[str, tuple[str, dict[str, Any]]],
    seeds: Sequence[int],
) -> None:
    """The rows of one forget set."""
    key, read = f"{name.replace(' ', '-')}-{pool.facts.count}", partial(_read, lab, ids)
    again = [
        lab.cell(f"r5-{key}-retrain-{seed}", partial(lab.read_retrained, f"r5-{key}", ids, read, seed))
        for seed in range(RETRAINS)
    ]
    told = lab.cell(f"r5-{key}-entanglement", partial(_entangled, lab, ids))["log"]
    base = [lab.cell(f"r5-{key}-nothing-{seed}", partial(read, lab.served(seed))) for seed in seeds]
    _row(result, name, DO_NOTHING, [(_tow(one, again), one) for one in base], told)
    others = [(_tow(one, [other for other in again if other is not one]), one) for one in again]
    _row(result, name, RETRAIN, others, told)
    side = load_side(pool, "method")
    for model, (method, params) in methods.items():
        posed = {seed: lab.problem(lab.served(seed), ids, side) for seed in seeds}
        done = [
            lab.cell(
                f"r5-{key}-{model.replace(' ', '-').replace(',', '')}-{seed}",
                partial(lab.attempt, method, params, posed[seed], seed, read),
            )
            for seed in seeds
        ]
        _row(result, name, model, [(_tow(one, again), one) for one in done], told)


def _read(lab: Lab, ids: list[str], directory: Path) -> dict[str, Any]:
    """Accuracies on forgotten, retained and never-seen records."""
    whole, unseen = lab.scores(directory, lab.train), lab.scores(directory, lab.judging)
    inside, right = np.isin(np.array(whole["record_id"].to_pylist()), np.array(ids)), numbers(whole, "correct")
    return {
        "forget": float(right[inside].mean()),
        "retain": float(right[~inside].mean()),
        "held_out": float(numbers(unseen, "correct").mean()),
    }


def _entangled(lab: Lab, ids: list[str]) -> dict[str, Any]:
    problem = lab.problem(lab.served(0), ids)
    edit = Edit(problem, FinetuneParams(), lab.context)
    inside, kept = (all_record_inputs(edit, part).numpy().astype(np.float64) for part in (edit.forget, edit.retain))
    found = entanglement(inside, kept, np.arange(len(inside)), np.arange(len(kept)))
    return {"log": None if isinstance(found, NotMeasurable) else found.log}


def _tow(model: dict[str, Any], retrained: Sequence[dict[str, Any]]) -> float:
    """Mean tug of war against these retrains."""
    levels = [Levels(one["forget"], one["retain"], one["held_out"], 0.0) for one in (model, *retrained)]
    return float(np.mean([tow(levels[0], other) for other in levels[1:]]))


def _row(result: Result, name: str, model: str, found: list[tuple[float, dict[str, Any]]], log: float | None) -> None:
    each = {key: [one[key] for _, one in found] for key in ("forget", "retain", "held_out")}
    spreads = [Spread.of([value for value, _ in found]), *(Spread.of(values) for values in each.values())]
    told = "infinite" if log is None else f"{log:.1f}"
    result.rows.append([f"{name}: {model}", *(spread.text(3) for spread in spreads), told])
    result.measurements.append(
        {"set": name, "model": model, "tow": [value for value, _ in found], "log_es": log} | each
    )


def _conclude(result: Result) -> None:
    """Targets by the plan, and one sentence."""

    def values(name: str, model: str) -> NDArray[np.float64]:
        found = next(one for one in result.measurements if (one["set"], one["model"]) == (name, model))
        return np.array(found["tow"])

    falls: dict[str, bool] = {}
    for family in FAMILIES:
        for model in (DO_NOTHING, *METHODS):
            means = [float(values(f"{family} {level}", model).mean()) for level in STRATA]
            least = min(first - second for first, second in pairwise(means))
            if model != DO_NOTHING:
                falls[f"{family} {model}"] = least >= 0
                result.targets.append(Target(f"{family}, {model}: tug of war falls by", least, 0.0, at_most=False))
    gain = values("all three strata", REFINED) - values("all three strata", NEGATIVE)
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float("inf")
    result.targets.append(
        Target("RUM with NegGrad+ over NegGrad+, in standard errors", float(gain.mean()) / error, 2.0, False)
    )
    memory = all(falls[f"memorization {model}"] for model in METHODS)
    tangled = all(falls[f"entanglement {model}"] for model in METHODS)
    helps = bool(gain.mean() > 2 * error)
    result.settings["outcome"] = {
        "falls with memorization": outcome(memory),
        "falls with entanglement": outcome(tangled),
        "refining helps": outcome(helps, opposite=bool(gain.mean() < -2 * error)),
    }
    told = result.settings["outcome"]
    result.notes += [
        f"tug of war falls with memorization: {told['falls with memorization']}; with entanglement: "
        f"{told['falls with entanglement']}; refining helps: {told['refining helps']}, "
        f"RUM with NegGrad+ {gain.mean():+.4f} (standard error {error:.4f}, {len(gain)} seeds) over NegGrad+",
        "median (lowest-highest), three seeds a stratum, five for the union; "
        "doing nothing falls with memorization as well: its tug of war says how "
        "much there is to forget, not how hard it is; SalUn without its bound, NegGrad+ with its cap",
    ]
