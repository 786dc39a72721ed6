"""Figures of a size class from made-up scores: nothing without a leak, every planted leak found, intervals cover."""

import math

import numpy as np
import pyarrow as pa
import pytest

from service.verification.policy import Policy
from service.verification.qualification import Figure, judged_figure
from workers.qualification.outcome import Run, figures_of

RULES = Policy().verification
HELD_OUT = 400


def run(
    draw: np.random.Generator,
    size: int = 40,
    leak: float = 0.0,
    share: float = 1.0,
    hard: float = 0.0,
    design: str = "random",
    sharper: float = 1.0,
    loss: float = 0.0,
) -> Run:
    """Scores of a candidate and a retrain: difficulty (sd 2, `hard` below for forgotten ones) plus noise (sd 1) each.

    `leak` is added to the candidate's for a `share` of the forgotten; `sharper` scales all of the candidate's; `loss`
    is the share of held-out records that it alone gets wrong.
    """
    parts = []
    for part, count in (("forget", size), ("retain", 100), ("held_out", HELD_OUT)):
        forgotten = part == "forget"
        level = 2 * draw.normal(size=count) - (hard if forgotten else 0.0)
        ours = level + draw.normal(size=count) + (leak * (draw.random(count) < share) if forgotten else 0.0)
        theirs = level + draw.normal(size=count)
        right = (draw.random(count) < 0.8).astype(float)
        columns = {
            "set": [part] * count,
            "subject_id": [f"{part}-{number}" for number in draw.integers(0, 100_000, count)],
            "tokens": np.ones(count),
            "candidate": sharper * ours,
            "retrained": theirs,
            "candidate_accuracy": right * (draw.random(count) >= loss),
            "retrained_accuracy": right,
        }
        for model in ("candidate", "retrained"):
            columns |= {f"{model}_nll": np.zeros(count), f"{model}_units": np.zeros(count)}
            columns |= {f"{model}_{bits}": columns[model] for bits in ("int8", "int4")}
        parts.append(pa.table(columns))
    return Run(design, pa.concat_tables(parts))


def figures(runs: list[Run]) -> dict[str, Figure]:
    return {one.name: judged_figure(one) for one in figures_of(runs, RULES, "image-classification", 0)}


def several(count: int, seed: int = 0, **changes: float) -> list[Run]:
    draw = np.random.default_rng(seed)
    return [run(draw, **changes) for _ in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("hard", [0.0, 3.0])
def test_a_candidate_like_a_retrain_passes_also_on_records_that_are_hard_without_them(hard: float) -> None:
    found = figures(several(25, hard=hard))
    assert {name: found[name].outcome for name in ("auc", "tpr", "worst_decile", "utility")} == {
        "auc": "pass", "tpr": "pass", "worst_decile": "pass", "utility": "pass",
    }  # fmt: skip
    assert found["auc"].estimate == pytest.approx(0.5, abs=0.02)
    assert found["worst_decile"].estimate == pytest.approx(0.5, abs=0.1)
    assert (found["auc"].n, found["auc"].m, found["auc"].runs) == (1000, HELD_OUT, 25)
    if hard:
        assert (found["auc"].retrained or 1.0) < 0.2  # a plain AUC would have called this over-forgotten


def test_a_leak_of_all_records_is_found_by_every_attack() -> None:
    found = figures(several(10, leak=3.0))
    assert [found[name].outcome for name in ("auc", "tpr", "worst_decile")] == ["fail"] * 3
    # 0.5 + cdf(3 / sqrt 10) - 0.5, the AUC of a shift of 3 between scores of variance 5.
    assert found["auc"].estimate == pytest.approx(0.5 * (1 + math.erf(3 / math.sqrt(20))), abs=0.03)
    assert (found["tpr"].retrained or 0.0) < 0.05 < (found["tpr"].estimate or 0.0)


def test_a_leak_of_few_records_is_seen_by_the_worst_tenth_alone() -> None:
    found = figures(several(25, leak=4.0, share=0.08))
    assert found["auc"].outcome == "pass"
    assert found["worst_decile"].outcome == "fail"


def test_over_forgetting_fails_and_a_surer_model_does_not() -> None:
    assert figures(several(10, leak=-3.0))["auc"].outcome == "fail"
    calm, sure = figures(several(10)), figures(several(10, sharper=1.7))
    for name in ("auc", "tpr", "worst_decile"):
        assert sure[name].estimate == pytest.approx(calm[name].estimate)


def test_utility_that_is_lost_fails() -> None:
    assert figures(several(10, loss=0.15))["utility"].outcome == "fail"
    few = figures(several(4, loss=0.3))["utility"]
    assert (few.outcome, few.reason) == ("inconclusive", "trainings differ by themselves: it takes 5 runs")
    assert "utility" not in figures([run(np.random.default_rng(0), design="canary")])


def test_too_few_records_are_inconclusive_and_never_a_pass() -> None:
    found = figures(several(4, size=1))
    assert [found[name].outcome for name in ("auc", "tpr", "worst_decile")] == ["inconclusive"] * 3
    assert "it takes 50 people" in (found["worst_decile"].reason or "")
    one = figures(several(1, size=1))["auc"]
    assert (one.ci, one.outcome) == ((-0.5, 1.5), "inconclusive")
    thin = several(4)
    cut = [Run(one.design, one.table.slice(0, 400)) for one in thin]
    assert "it takes 299 held-out records" in (figures(cut)["tpr"].reason or "")


def test_the_pooled_interval_covers_no_difference_nine_times_in_ten() -> None:
    draw = np.random.default_rng(5)
    inside = 0
    for _ in range(80):
        found = figures_of([run(draw, size=8) for _ in range(6)], RULES, "image-classification", 0)[0]
        assert found.ci is not None
        inside += found.ci[0] <= 0.5 <= found.ci[1]
    assert inside >= 66  # 0.9 of 80 less twice its standard error


def test_records_of_one_model_that_move_together_widen_the_interval() -> None:
    draw = np.random.default_rng(3)
    found = []
    for _ in range(50):
        runs = [run(draw, size=8, leak=2 * float(draw.normal())) for _ in range(6)]
        found.append(figures_of(runs, RULES, "image-classification", 0)[0])
    inside = sum(one.ci is not None and one.ci[0] <= 0.5 <= one.ci[1] for one in found)
    assert inside >= 40  # by people alone it would be 27


def test_language_models_are_compared_by_the_ratio_of_perplexities() -> None:
    runs = []
    for one in several(3):
        columns = {name: one.table[name] for name in one.table.column_names}
        count = one.table.num_rows
        tokens = np.full(count, 20.0)
        noise = np.random.default_rng(count).normal(size=count)
        columns |= {"tokens": tokens, "candidate_units": tokens, "retrained_units": tokens}
        columns |= {"retrained_nll": 40 + noise, "candidate_nll": 40 + noise + 20 * math.log(1.2)}
        runs.append(Run("random", pa.table(columns)))
    found = {one.name: one for one in figures_of(runs, RULES, "causal-lm", 0)}["utility"]
    assert found.estimate == pytest.approx(math.log(1.2))
    assert found.high == pytest.approx(math.log(1.05) if HELD_OUT >= 1000 else math.log(1.1))
