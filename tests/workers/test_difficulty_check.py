"""How hard forgotten texts are by what the untouched model says of them as a whole, where its training saw parts."""

import numpy as np
import pyarrow as pa
import pytest

from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation
from service.verification.verdict import SAMPLED, WHOLE, disagreements
from tests.workers.synthetic import World, language_table
from workers.metrics.difficulty_baseline import Difficulty
from workers.planning.assessment import Facts, assess

SIZES = {"forget": 150, "retain": 600, "held_out": 900}
TAKEN_IN = 0.5  # nats a token that both trained sets are easier by


def table(seed: int, harder: float, leak: float) -> pa.Table:
    """Losses of one model: forgotten texts are `harder` by nature, and `leak` of what training gives is left."""
    draw, parts = np.random.default_rng(seed), []
    for part, size in SIZES.items():
        losses = draw.normal(3, 0.3, size)
        losses += {"forget": harder - leak * TAKEN_IN, "retain": -TAKEN_IN, "held_out": 0.0}[part]
        parts.append(language_table(part, losses, np.arange(size)))
    return pa.concat_tables(parts)


def sampled(seed: int) -> Difficulty:
    """What training noted at a few tokens: nothing of interest."""
    draw = np.random.default_rng([9, seed])
    sizes = SIZES["forget"], SIZES["retain"]
    values = [draw.normal(size=size) for size in sizes]
    return Difficulty(values[0], np.arange(sizes[0]), values[1], 10**6 + np.arange(sizes[1]))


def judged(seed: int, harder: float, leak: float) -> Evaluation:
    tables = {"original": table(seed, harder, 1.0), "candidate": table(1000 + seed, harder, leak)}
    found = assess(tables, "causal-lm", Policy(), facts=Facts(difficulty=sampled(seed)))
    assert disagreements(found, Policy().verification) == []
    return found


def check_of(found: Evaluation, name: str) -> Check:
    check = found.check(name)
    assert check is not None
    return check


def test_texts_as_hard_as_others_are_compared_and_the_power_is_that_of_sizes() -> None:
    told = [judged(seed, 0.0, 0.0) for seed in range(20)]
    assert sum(check_of(found, "difficulty_baseline").statistic == SAMPLED for found in told) >= 19
    clean = [check_of(found, "membership_auc") for found in told]
    powers = {check.power_at_zero for check in clean if check.power_at_zero}
    assert len(powers) == 1
    assert sum(check.verdict == "pass" for check in clean) >= 20 * powers.pop() - 3
    assert check_of(judged(3, 0.0, 1.0), "membership_auc").verdict == "fail"


@pytest.mark.parametrize("harder", [0.3, -0.3])
@pytest.mark.parametrize("leak", [0.0, 0.6, 1.0])
def test_harder_or_easier_texts_are_not_compared_and_no_power_is_stated(harder: float, leak: float) -> None:
    """Harder texts of which 60 % are left look like never-seen ones: an AUC of one half that would have passed."""
    found = judged(1, harder, leak)
    easy, attack = check_of(found, "difficulty_baseline"), check_of(found, "membership_auc")
    assert (easy.statistic, easy.verdict) == (WHOLE, "inconclusive")
    assert (attack.verdict, attack.power_at_zero) == ("inconclusive", 0.0)
    if (harder, leak) == (0.3, 0.6):
        assert abs((attack.estimate or 0) - 0.5) < 0.05
    assert found.verdict != "pass"


def test_of_classifiers_the_training_alone_is_asked() -> None:
    tables = World(forget=150, held_out=900, seed=2).tables(original=2.0, candidate=0.0)
    easy = check_of(assess(tables, "image-classification", Policy(), facts=Facts()), "difficulty_baseline")
    assert (easy.estimate, easy.verdict) == (None, "info")
