"""R8, NPO (2404.05868): "collapses more slowly than gradient ascent, and keeps utility where ascent loses it".

A tiny GPT-2 that knows ten answers about each of 100 made-up authors by heart; one and ten of them are forgotten by the
published forms without our bounds, ten visits of each question, at a tenth and at three tenths of the training's rate.
Forget quality as in TOFU: the p-value of a two-sample test of truth ratios against a retrain (above 0.05: like it).
Utility: the probability of retained answers, a root by length, as a share of the untouched model's.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import environment
from benchmarks.record import Result, Spread, Target
from benchmarks.reproduce_texts import ASKED, AUTHORS, WRONG, authors_lab, questions, wrong_answers
from benchmarks.reproduce_world import (
    DO_NOTHING,
    ONE_THREAD,
    OUT,
    RETRAIN,
    SEEDS,
    Lab,
    numbers,
    outcome,
)
from service.verification.statistics import NotMeasurable
from workers.metrics.truth_ratio import forget_quality, truth_ratio

FORGOTTEN, RATES, PASSES = (1, 10), (0.1, 0.3), 10
ASCENT, ALONE, NPO, DIFFERENCE, SIMPLE = "gradient ascent", "npo without retained", "npo", "grad_diff", "simnpo"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    ASCENT: ("controlled_ascent", {"bound": "none", "tolerance": None}),
    ALONE: ("npo", {"bound": "none", "gamma": 1.0, "alpha": 0.0}),
    DIFFERENCE: ("grad_diff", {"bound": "none"}),
    NPO: ("npo", {"bound": "none", "gamma": 1.0}),
    SIMPLE: ("simnpo", {"bound": "none"}),
}
OURS = "npo, our default"
LIKE = 0.05
COLUMNS = ("forgotten, model", "utility", "forget quality, p", "distance", "forgotten loss", "truth ratio")


def run(quick: bool = False) -> Result:
    """Train what is missing and measure; `quick` takes one seed, one rate and one author."""
    seeds, counts, rates = (SEEDS[:1], FORGOTTEN[:1], RATES[:1]) if quick else (SEEDS, FORGOTTEN, RATES)
    with environment(LETHE_HOME=str(OUT), **ONE_THREAD):
        lab = authors_lab(quick)
        result = Result("reproduce-r8", "R8: NPO and ascent on a tiny GPT-2 that knows authors", len(seeds), COLUMNS)
        for count in counts:
            chosen = np.random.default_rng(count).choice(AUTHORS, count, replace=False)
            ids = [f"train-{author * len(ASKED) + at:05d}" for author in sorted(chosen) for at in range(len(ASKED))]
            _measure(result, lab, count, ids, rates, seeds)
    result.settings |= {"authors": AUTHORS, "questions": len(ASKED), "passes": PASSES, "rates": rates}
    _conclude(result, counts)
    return result


def _measure(
    result: Result, lab: Lab, count: int, ids: list[str], rates: Sequence[float], seeds: Sequence[int]
) -> None:
    """The rows of so many forgotten authors."""
    read = partial(_read, lab, ids)

    def cells(name: str, measure: Any) -> list[dict[str, Any]]:
        return [
            lab.cell(f"r8-{count}-{name.replace(' ', '-').replace(',', '')}-{seed}", partial(measure, seed))
            for seed in seeds
        ]

    again = cells(RETRAIN, lambda seed: read(lab.retrained(f"r8-{count}", ids, seed)))
    base = cells(DO_NOTHING, lambda seed: read(lab.served(seed)))
    _row(result, count, DO_NOTHING, None, base, base, again)
    _row(result, count, RETRAIN, None, again, base, [*again[1:], again[0]])
    peak = lab.recipe.training.learning_rate
    for rate in rates:
        for name, (method, params) in METHODS.items():
            chosen = params | {"learning_rate": rate * peak, "passes": PASSES}

            def forget(seed: int, method: str = method, chosen: dict[str, Any] = chosen) -> dict[str, Any]:
                return lab.attempt(method, chosen, lab.problem(lab.served(seed), ids), seed, read)

            _row(result, count, name, rate, cells(f"{name}-{rate}", forget), base, again)
    ours = cells(OURS, lambda seed: lab.attempt("npo", {}, lab.problem(lab.served(seed), ids), seed, read))
    _row(result, count, OURS, None, ours, base, again)


def _read(lab: Lab, ids: list[str], directory: Path) -> dict[str, Any]:
    """Losses a token of all training questions, and truth ratios of the forgotten ones with five wrong answers each."""
    forgotten = lab.train.subset(lab.train.rows_of(ids).tolist())
    prompts = forgotten.column("prompt")
    wrong = wrong_answers(prompts, seed=5)
    made = questions([one for one in prompts for _ in range(WRONG)], [one for each in wrong for one in each])
    right = numbers(lab.scores(directory, forgotten), "loss")
    losses = numbers(lab.scores(directory, made), "loss").reshape(-1, WRONG)
    kept = numbers(lab.scores(directory, lab.train.without(ids)), "loss")
    return {
        "utility": float(np.exp(-kept).mean()),
        "forget_loss": float(right.mean()),
        "ratios": np.minimum(truth_ratio(-right, -losses), 1e30).tolist(),
    }


def _row(
    result: Result,
    count: int,
    name: str,
    rate: float | None,
    found: list[dict[str, Any]],
    base: list[dict[str, Any]],
    again: list[dict[str, Any]],
) -> None:
    """One model beside the retrain of its seed."""
    utility = [one["utility"] / before["utility"] for one, before in zip(found, base, strict=True)]
    qualities = []
    for one, other in zip(found, again, strict=True):
        people = np.arange(len(one["ratios"]))
        quality = forget_quality(np.array(one["ratios"]), np.array(other["ratios"]), people, seed=0, draws=2)
        if isinstance(quality, NotMeasurable):
            raise TypeError(quality.reason)
        qualities.append(quality)
    p, distance = [one.p_value for one in qualities], [one.distance for one in qualities]
    losses, ratios = [one["forget_loss"] for one in found], [float(np.median(one["ratios"])) for one in found]
    told = f"{count} of {AUTHORS}: {name}" + (f", rate x {rate}" if rate is not None else "")
    texts = [Spread.of(utility).text(2), f"{np.median(p):.2g}", Spread.of(distance).text(2), Spread.of(losses).text(2)]
    result.rows.append([told, *texts, f"{np.median(ratios):.3g}"])
    result.measurements.append(
        {"authors": count, "model": name, "rate": rate, "utility": utility, "p": p, "distance": distance}
        | {"probability": [one["utility"] for one in found]}
        | {"forget_loss": losses, "truth_ratio": ratios}
    )


def _conclude(result: Result, counts: Sequence[int]) -> None:
    """Targets by the plan, and one sentence."""

    def median(key: str, name: str, count: int, rate: float) -> float:
        wanted = (count, name, rate)
        found = next(one for one in result.measurements if (one["authors"], one["model"], one["rate"]) == wanted)
        return float(np.median(found[key]))

    rates, most = result.settings["rates"], max(counts)
    # The rate at which ascent does something to most of the authors, and NPO is looked at under the same.
    high = max(rates)
    ascent, alone, kept = (median("utility", name, most, high) for name in (ASCENT, ALONE, NPO))
    quality = max(median("p", NPO, min(counts), rate) for rate in rates)
    # There is nothing to forget of answers that the untouched model does not know.
    known = [value for one in result.measurements if one["model"] == DO_NOTHING for value in one["probability"]]
    result.targets += [
        Target("untouched: probability of an answer, a root by length", min(known), 0.8, at_most=False),
        Target(f"{most} authors: utility after ascent", ascent, 0.1),
        Target(f"{most} authors: utility, NPO alone over ascent", alone - ascent, 0.0, at_most=False),
        Target(f"{most} authors: utility after NPO", kept, 0.8, at_most=False),
        Target(f"{min(counts)} author: best p of NPO", quality, LIKE, at_most=False),
    ]
    slower, keeps = ascent <= 0.1 and alone > ascent, kept >= 0.8
    at_best = {count: max(median("p", NPO, count, rate) for rate in rates) for count in counts}
    result.settings["outcome"] = {
        "ascent collapses, NPO more slowly": outcome(slower, opposite=alone < ascent),
        "NPO keeps utility": outcome(keeps),
        "NPO looks like a retrain at 1 %": outcome(quality > LIKE),
    }
    told = result.settings["outcome"]
    result.notes += [
        f"ascent collapses and NPO more slowly: {told['ascent collapses, NPO more slowly']} (utility {ascent:.2f} and "
        f"{alone:.2f} without retained records, {most} authors, rate x {high}); NPO keeps utility: "
        f"{told['NPO keeps utility']} ({kept:.2f}); NPO looks like a retrain at 1 %: "
        f"{told['NPO looks like a retrain at 1 %']} (best p by authors: "
        + ", ".join(f"{count}: {p:.2g}" for count, p in at_best.items())
        + ")",
        "median (lowest-highest) of the seeds; p: median; ten questions an author, so that the test of one author sees "
        "only distances above 0.6; answers are not paraphrased",
    ]
