"""Candidates of the gate's self-test: what they change, what they leave, and noise whose AUC is known exactly."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.gate_candidates import (
    COLLAPSED,
    CONSTANT,
    DO_NOTHING,
    candidates,
    noise_by_population,
    noise_by_references,
    scores_of,
    shift_to,
)
from service.verification.quantiles import normal_cdf
from service.verification.statistics import clustered_auc
from workers.metrics.reference_auc import Judged, ReferenceAuc, reference_auc

N, M = 200, 1500


def classifier(draw: np.random.Generator) -> pa.Table:
    sets = ["forget"] * N + ["retain"] * 50 + ["held_out"] * M
    return pa.table(
        {
            "record_id": [f"record-{at:05d}" for at in range(len(sets))],
            "set": sets,
            "confidence": draw.normal(2, 3, len(sets)),
            "correct": draw.random(len(sets)) < 0.8,
        }
    )


def language(draw: np.random.Generator) -> pa.Table:
    table = classifier(draw).drop_columns(["confidence", "correct"])
    tokens = draw.integers(5, 15, table.num_rows)
    loss = draw.gamma(4, 0.5, table.num_rows)
    columns = {"loss": loss, "nll": loss * tokens, "tokens": tokens}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table


def rows(table: pa.Table, part: str) -> np.ndarray:
    return np.array([name == part for name in table["set"].to_pylist()])


def perplexity(table: pa.Table) -> float:
    held = rows(table, "held_out")
    return float(table["nll"].to_numpy()[held].sum() / table["tokens"].to_numpy()[held].sum())


@pytest.mark.parametrize("make", [classifier, language])
def test_only_scores_change(make) -> None:
    original = make(np.random.default_rng(0))
    made = candidates(original, original)
    for name in (DO_NOTHING, COLLAPSED, CONSTANT):
        assert made[name].column_names == original.column_names
        assert made[name]["record_id"].equals(original["record_id"])
        assert not np.array_equal(scores_of(made[name]), scores_of(original))
    assert np.abs(scores_of(made[DO_NOTHING]) - scores_of(original)).max() <= 2e-6
    assert np.ptp(scores_of(made[COLLAPSED])) < 1e-5
    assert len(np.unique(np.round(scores_of(made[CONSTANT]), 4))) == 2


def test_a_language_models_perplexity_stays() -> None:
    original = language(np.random.default_rng(1))
    for name, table in candidates(original, original).items():
        assert perplexity(table) == pytest.approx(perplexity(original), abs=1e-5), name
        assert table["loss"].to_numpy() == pytest.approx(table["nll"].to_numpy() / table["tokens"].to_numpy())


@pytest.mark.parametrize("auc", [0.4, 0.5, 0.6, 0.65])
def test_the_shift_of_an_auc(auc: float) -> None:
    assert normal_cdf(shift_to(auc) / np.sqrt(2)) == pytest.approx(auc, abs=1e-6)


@pytest.mark.parametrize("make", [classifier, language])
@pytest.mark.parametrize("auc", [0.5, 0.6])
def test_population_noise_has_its_auc(make, auc: float) -> None:
    draw = np.random.default_rng(2)
    original = make(draw)
    found = []
    for _ in range(60):
        table = noise_by_population(original, auc, draw)
        scores = scores_of(table)
        found.append(_plain(scores[rows(table, "forget")], scores[rows(table, "held_out")]))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - auc) < 3 * error


def _plain(members: np.ndarray, others: np.ndarray) -> float:
    return clustered_auc(members, others, np.arange(len(members)), np.arange(len(others))).auc


def beside(draw: np.random.Generator, size: int, hard: float) -> Judged:
    """Records of very different difficulty, a share of them far harder, and four references of each."""
    mean = draw.normal(2, 2, size) - 6 * (draw.random(size) < hard)
    variance = draw.gamma(3, 0.3, size)
    return Judged(np.zeros(size), mean, variance, np.full(size, 4), np.arange(size), draw.integers(0, 3, size))


@pytest.mark.parametrize("auc", [0.4, 0.5, 0.6])
def test_calibrated_noise_has_its_auc_however_hard_the_records_are(auc: float) -> None:
    draw = np.random.default_rng(3)
    original = classifier(draw)
    sets = beside(draw, N, 0.9), beside(draw, M, 0.2)
    found = []
    for _ in range(30):
        scores = scores_of(noise_by_references(original, sets, auc, draw))
        forget, held_out = (
            Judged(scores[rows(original, name)], part.mean, part.variance, part.count, part.subjects, part.strata)
            for name, part in zip(("forget", "held_out"), sets, strict=True)
        )
        measured = reference_auc(forget, held_out)
        assert isinstance(measured, ReferenceAuc)
        found.append(measured.auc.auc)
    # Isotonic regression fits held-out records a little more closely than forgotten ones.
    assert abs(np.mean(found) - auc) < 3 * np.std(found) / np.sqrt(len(found)) + 0.003
