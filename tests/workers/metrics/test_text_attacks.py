"""Membership scores of texts by hand, and what each makes up for."""

import numpy as np
import pytest

from service.verification.statistics import clustered_auc
from workers.metrics.text_attacks import loss_scores, min_k_scores, reference_scores, zlib_scores


def auc(members: np.ndarray, others: np.ndarray) -> float:
    return clustered_auc(members, others, np.arange(len(members)), np.arange(len(others))).auc


def test_scores_by_hand() -> None:
    loss = np.array([2.0, 0.5])
    assert loss_scores(loss).tolist() == [-2.0, -0.5]
    assert zlib_scores(loss, np.array([40, 0])).tolist() == [-0.05, -0.5]
    assert min_k_scores(np.array([-3, -1])).tolist() == [-3.0, -1.0]
    assert reference_scores(loss, np.array([2.5, 0.25])).tolist() == [0.5, -0.25]
    with pytest.raises(ValueError, match="reference"):
        reference_scores(loss, np.array([1.0]))


def test_a_reference_takes_away_what_is_hard_about_a_text_and_a_shifted_one_changes_nothing() -> None:
    """Losses N(difficulty, 1) with a leak of 1 and difficulties that vary by 3: AUC = Phi(1 / sqrt(2 (1 + 3^2)))
    without a reference, Phi(1 / sqrt(2 (1 + 1))) with a reference of the same noise."""
    random = np.random.default_rng(0)
    size = 20_000
    hard, other = random.normal(0, 3, size), random.normal(0, 3, size)
    losses = hard - 1 + random.normal(size=size), other + random.normal(size=size)
    references = hard + random.normal(size=size), other + random.normal(size=size)
    assert auc(*map(loss_scores, losses)) == pytest.approx(0.5885, abs=0.01)
    found = auc(*(reference_scores(*pair) for pair in zip(losses, references, strict=True)))
    assert found == pytest.approx(0.6915, abs=0.01)
    # A reference that is worse all over, as one trained on less data is, shifts both sides.
    assert found == auc(*(reference_scores(*pair) for pair in zip(losses, (r + 4 for r in references), strict=True)))


@pytest.mark.parametrize(("leak", "expected"), [(0.0, 0.5), (0.5, 0.64)])
def test_lengths_make_up_for_variety(leak: float, expected: float) -> None:
    """The loss is proportional to the compressed length: the score is N(leak, 1) below 1 in units of its noise."""
    random = np.random.default_rng(1)
    size = 20_000
    lengths = [random.integers(20, 200, size) for _ in range(2)]
    ratios = [random.normal(10 - leak, 1, size), random.normal(10, 1, size)]
    scores = [zlib_scores(ratio * length, length) for ratio, length in zip(ratios, lengths, strict=True)]
    assert auc(*scores) == pytest.approx(expected, abs=0.01)
    plain = auc(*(loss_scores(ratio * length) for ratio, length in zip(ratios, lengths, strict=True)))
    assert abs(plain - 0.5) < 0.03
