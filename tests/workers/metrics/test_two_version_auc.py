"""Two-version attack: what an exact retrain gives away beside the original, no leak, and no recognising of people."""

import numpy as np
import pytest

from service.verification.statistics import Auc, NotMeasurable, clustered_auc
from workers.metrics.two_version_auc import Versions, two_version_auc


def versions(seed: int, size: int, fell: float = 0.0, left: float = 0.0, per_subject: int = 1) -> Versions:
    """Original = hardness + fell + noise, candidate = hardness + left + noise: what training on a record added."""
    draw = np.random.default_rng(seed)
    hardness = draw.normal(0, 3, size)
    owner = np.char.add(f"{seed}-", (np.arange(size) // per_subject).astype(str))
    noise = 0.5 * draw.normal(size=(2, size))
    return Versions(hardness + fell + noise[0], hardness + left + noise[1], owner)


def measured(forget: Versions, held_out: Versions, seed: int = 0) -> Auc:
    found = two_version_auc(forget, held_out, seed)
    assert isinstance(found, Auc)
    return found


def test_an_exact_retrain_beside_its_original_names_the_deleted() -> None:
    """The candidate alone shows nothing and the original alone little; the difference of the two shows nearly all."""
    forget, held_out = versions(0, 200, fell=1.5), versions(1, 600)
    alone = [
        clustered_auc(*scores, forget.subjects, held_out.subjects)
        for scores in ((forget.candidate, held_out.candidate), (forget.original, held_out.original))
    ]
    assert alone[0].interval(0.95)[0] <= 0.5 <= alone[0].interval(0.95)[1]
    assert alone[1].auc < 0.7
    found = measured(forget, held_out)
    # The best single feature is u - o: a shift of 1.5 with standard deviation sqrt(0.5), AUC Phi(1.5).
    assert found.auc == pytest.approx(0.933, abs=0.03)
    assert (found.n, found.m, found.clusters) == (200, 600, (200, 600))


def test_two_versions_that_never_saw_the_records_read_a_half_and_the_interval_covers() -> None:
    found = [measured(versions(seed, 60), versions(5000 + seed, 200), seed) for seed in range(100)]
    assert np.mean([auc.auc for auc in found]) == pytest.approx(0.5, abs=0.02)
    covered = np.mean([auc.interval(0.95)[0] <= 0.5 <= auc.interval(0.95)[1] for auc in found])
    assert 0.92 <= covered <= 0.99
    # The error is that of a new world, not only of new test records.
    assert np.mean([auc.se for auc in found]) == pytest.approx(np.std([auc.auc for auc in found]), rel=0.15)


def test_an_untouched_candidate_is_the_attack_on_the_original() -> None:
    forget, held_out = versions(2, 300, fell=3.0), versions(3, 600)
    same = [Versions(part.original, part.original, part.subjects) for part in (forget, held_out)]
    alone = clustered_auc(forget.original, held_out.original, forget.subjects, held_out.subjects)
    assert measured(same[0], same[1]).auc == pytest.approx(alone.auc, abs=0.02)


def test_over_forgetting_is_found_as_well() -> None:
    assert measured(versions(4, 100, left=-2.0), versions(5, 300)).interval(0.95)[0] > 0.8


def test_a_fit_never_sees_the_person_it_judges() -> None:
    """Each person has a mark of their own on both sides and no leak; with folds by record the mark would be learnt."""
    draw, owner = np.random.default_rng(6), np.repeat(np.arange(12), 25)
    found = []
    for seed in range(20):
        mark = draw.normal(0, 1, (2, 24))
        forget, held_out = (
            Versions(mark[0][owner + 12 * side], mark[1][owner + 12 * side], owner + 12 * side) for side in (0, 1)
        )
        found.append(measured(forget, held_out, seed))
    assert np.mean([auc.auc for auc in found]) < 0.56
    assert np.mean([auc.interval(0.95)[0] <= 0.5 for auc in found]) >= 0.9


def test_a_person_with_records_on_both_sides_is_in_one_fold() -> None:
    draw, owner = np.random.default_rng(7), np.repeat(np.arange(20), 5)
    same = [Versions(draw.normal(size=100), draw.normal(size=100), owner) for _ in range(2)]
    assert measured(same[0], same[1]).auc == pytest.approx(0.5, abs=0.15)


def test_few_people_cannot_be_split_into_folds() -> None:
    for forget, held_out in (
        (versions(8, 40, per_subject=10), versions(9, 100)),
        (versions(8, 100), versions(9, 40, per_subject=10)),
        (versions(8, 0), versions(9, 100)),
    ):
        found = two_version_auc(forget, held_out, 0)
        assert isinstance(found, NotMeasurable)
        assert "fewer than 5 people" in found.reason
