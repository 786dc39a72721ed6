"""R2, Top-K and Random-k perturbation (2401.04385): "accuracy is kept at a fraction of the time of a retrain".

Noisy digits, 1, 5 and 10 % forgotten and fifty mislabelled records; shares of 1, 5 and 20 % of the weights under four
strengths of noise. Both readings of the forgetting rate, the memory retention rate, and CPU seconds beside retrains.
Records that were learnt by heart are where the method should fail: the noise is aimed at nothing of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import environment
from benchmarks.record import Result, Spread, Target
from benchmarks.reproduce_world import (
    DO_NOTHING,
    ONE_THREAD,
    OUT,
    RETRAIN,
    SEEDS,
    Lab,
    digits_lab,
    drawn,
    numbers,
    outcome,
    wrong_ids,
)
from service.verification.statistics import NotMeasurable
from workers.metrics.forgetting_rate import forgetting_rate_accuracy, forgetting_rate_mia
from workers.metrics.memory_retention import memory_retention_rate

METHODS = ("top_k_perturbation", "random_k_perturbation")
SHARES, NOISES, USUAL = (0.01, 0.05, 0.2), (0.25, 0.5, 1.0, 2.0), 0.5
WRONG = "50 mislabelled"
KEPT, COST, HALF = 0.98, 0.10, 0.5
FIGURES = ("retained", "retained_right", "held_out", "rate_mia", "rate_accuracy", "gap", "cost")
COLUMNS = (
    "forget set, model",
    "retention, kept",
    "right labels",
    "held out",
    "rate by attack",
    "by accuracy",
    "loss gap",
    "CPU",
)


@dataclass(frozen=True)
class Setting:
    """One row: a method with its share of the weights and strength of noise."""

    method: str
    share: float
    noise: float

    @property
    def name(self) -> str:
        return f"{self.method.removesuffix('_perturbation')} {self.share:.0%} noise {self.noise}"


def run(quick: bool = False) -> Result:
    """Train what is missing and measure; `quick` takes one seed, one share and two strengths."""
    seeds = SEEDS[:1] if quick else SEEDS
    choices = product(METHODS, SHARES[1:2], NOISES[1:3]) if quick else product(METHODS, SHARES, NOISES)
    settings = [Setting(*each) for each in choices]
    with environment(LETHE_HOME=str(OUT), **ONE_THREAD):
        lab = digits_lab(quick)
        result = Result("reproduce-r2", "R2: Top-K and Random-k perturbation on noisy digits", len(seeds), COLUMNS)
        for name, ids in _sets(lab):
            _measure(result, lab, name, ids, settings, seeds)
    _conclude(result)
    return result


def _sets(lab: Lab) -> Iterator[tuple[str, list[str]]]:
    for percent in (1, 5, 10):
        yield f"{percent} %", drawn(lab.train.ids.tolist(), round(percent / 100 * len(lab.train)), seed=20 + percent)
    yield WRONG, drawn(wrong_ids(lab), 50, seed=20)


def _measure(
    result: Result, lab: Lab, name: str, ids: list[str], settings: Sequence[Setting], seeds: Sequence[int]
) -> None:
    """The rows of one forget set."""
    key = name.replace(" %", "-percent").replace(" ", "-")
    read = partial(_read, lab, ids)
    posed = {seed: lab.problem(lab.served(seed), ids) for seed in seeds}
    again = [
        lab.cell(f"r2-{key}-retrain-{seed}", partial(lab.attempt, "retrain", {}, posed[seed], 100 + seed, read))
        for seed in seeds
    ]
    base = {seed: lab.cell(f"r2-{key}-nothing-{seed}", partial(read, lab.served(seed))) for seed in seeds}
    kept = lab.train.ids[~np.isin(lab.train.ids, ids)]
    expected = Expected(
        ~np.isin(kept, wrong_ids(lab)),
        float(np.mean([np.mean(each["forget_correct"]) for each in again])),
        np.mean([each["forget_loss"] for each in again], axis=0),
        float(np.mean([each["cpu_seconds"] for each in again])),
    )
    _row(result, name, DO_NOTHING, [_figures(base[seed], base[seed], expected) for seed in seeds])
    _row(result, name, RETRAIN, [_figures(base[seed], one, expected) for seed, one in zip(seeds, again, strict=True)])
    for setting in settings:
        params = {"share": setting.share, "noise": setting.noise}
        done = [
            lab.cell(
                f"r2-{key}-{setting.name.replace(' ', '-')}-{seed}",
                partial(lab.attempt, setting.method, params, posed[seed], seed, read),
            )
            for seed in seeds
        ]
        found = [_figures(base[seed], one, expected) for seed, one in zip(seeds, done, strict=True)]
        _row(result, name, setting.name, found, setting)


def _read(lab: Lab, ids: list[str], directory: Path) -> dict[str, Any]:
    """Scores of the forgotten records, and right answers on the others."""
    whole, unseen = lab.scores(directory, lab.train), lab.scores(directory, lab.judging)
    inside = np.isin(np.array(whole["record_id"].to_pylist()), np.array(ids))
    forgotten = {name: numbers(whole, name)[inside] for name in ("confidence", "loss", "correct")}
    return {f"forget_{name}": values.tolist() for name, values in forgotten.items()} | {
        "retain_correct": numbers(whole, "correct")[~inside].tolist(),
        "unseen_correct": numbers(unseen, "correct").tolist(),
        "unseen_confidence": numbers(unseen, "confidence").tolist(),
    }


@dataclass(frozen=True)
class Expected:
    """Which retained records are labelled right [r]; of retrains the accuracy and mean losses [n] on the forgotten
    records, and CPU seconds.
    """

    right: np.ndarray
    accuracy: float
    losses: np.ndarray
    seconds: float


def _figures(before: dict[str, Any], after: dict[str, Any], expected: Expected) -> dict[str, float]:
    """The figures of one model; nan where one cannot be measured. Every record counts as a person of its own."""
    was, now = ({key: np.array(one[key]) for key in before if isinstance(one[key], list)} for one in (before, after))
    people = {key: np.arange(len(was[key])) for key in was}
    mia = forgetting_rate_mia(
        (was["forget_confidence"], was["unseen_confidence"]),
        (now["forget_confidence"], now["unseen_confidence"]),
        people["forget_loss"],
    )
    right = {key: one["retain_correct"][expected.right] for key, one in (("was", was), ("now", now))}
    rates = (
        memory_retention_rate(was["retain_correct"], now["retain_correct"], people["retain_correct"]),
        memory_retention_rate(right["was"], right["now"], np.arange(len(right["was"]))),
        memory_retention_rate(was["unseen_correct"], now["unseen_correct"], people["unseen_correct"]),
        mia,
        forgetting_rate_accuracy(
            was["forget_correct"], now["forget_correct"], expected.accuracy, people["forget_correct"]
        ),
    )
    told = [float("nan") if isinstance(rate, NotMeasurable) else rate.estimate for rate in rates]
    gap = float(np.median(np.abs(now["forget_loss"] - expected.losses)))
    return dict(zip(FIGURES, [*told, gap, after.get("cpu_seconds", 0.0) / expected.seconds], strict=True))


def _row(result: Result, name: str, model: str, found: list[dict[str, float]], setting: Setting | None = None) -> None:
    each = {key: [one[key] for one in found] for key in FIGURES}
    facts = {key: [None if np.isnan(value) else value for value in values] for key, values in each.items()}
    result.measurements.append({"set": name, "model": model, **(vars(setting) if setting else {}), **facts})
    if setting is None or setting.share == SHARES[1]:  # the other shares are in the JSON file
        cells = ["-" if np.isnan(values).any() else Spread.of(values).text(2) for values in each.values()]
        result.rows.append([f"{name}: {model}", *cells])


def _conclude(result: Result) -> None:
    """Targets by the plan, and one sentence."""
    tried = [one for one in result.measurements if "share" in one]
    usual = [one for one in tried if one["noise"] == USUAL and one["set"] != WRONG]
    kept = min(min(np.mean(one["retained"]), np.mean(one["held_out"])) for one in usual)
    cost = max(float(np.mean(one["cost"])) for one in usual)
    wrong = [one for one in tried if one["set"] == WRONG and np.mean(one["held_out"]) >= KEPT]
    rates = {
        float(np.mean(one["rate_accuracy"])): float(np.mean(one["gap"]))
        for one in wrong
        if None not in one["rate_accuracy"]
    }
    best = max(rates, default=0.0)
    random = [one for one in usual if one["method"] == METHODS[1]]
    unseen, right = (min(float(np.mean(one[key])) for one in random) for key in ("held_out", "retained_right"))
    result.targets += [
        Target(f"noise {USUAL}, 1 to 10 %: least retention", float(kept), KEPT, at_most=False),
        Target(f"noise {USUAL}, 1 to 10 %: most CPU of a retrain", cost, COST),
        Target("mislabelled: best forgetting rate by accuracy that keeps 0.98", best, HALF),
    ]
    first, fails = kept >= KEPT and cost <= COST, best <= HALF
    result.settings |= {"outcome": outcome(first), "fails_on_memorised": fails}
    verdict = "it fails there, as foreseen" if fails else "it does not fail there, against the plan"
    result.notes += [
        f"{outcome(first)}: with noise {USUAL} at least {kept:.3f} of the accuracy is kept, at {cost:.3f} of the CPU "
        f"of a retrain at most; on mislabelled records the best setting that keeps {KEPT} forgets {best:.2f} of what a "
        f"retrain does, by accuracy ({verdict}), with losses {rates.get(best, float('nan')):.2f} nats from theirs",
        f"random_k alone at noise {USUAL}: at least {unseen:.3f} of the held-out accuracy, {right:.3f} on retained "
        "records with right labels",
        "median (lowest-highest) of the seeds; share 5 % of the weights, the others are in the JSON; noise in root "
        "mean squares of each tensor; rates: 0 nothing changed, 1 like a model that never saw them (by accuracy)",
    ]
