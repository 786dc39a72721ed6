"""Candidates that the gate's self-test judges, as score tables: made from those of the original and of a retrain.

Each is a table in the columns of `workers.scoring.score` and `set`. What is made up are the scores that attacks read;
right and wrong answers stay the original's, so that utility says nothing against a candidate.
"""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.verification.quantiles import normal_quantile
from service.verification.statistics import Array
from workers.metrics.reference_auc import Judged, noise, pooled_variance
from workers.planning.score_tables import FORGET, HELD_OUT

DO_NOTHING, RETRAIN, COLLAPSED, CONSTANT = "do nothing", "retrain", "collapsed", "constant margin"
AT_MARGIN = "noise at the margin"
_NUDGE = 1e-6


def candidates(original: pa.Table, retrained: pa.Table) -> dict[str, pa.Table]:
    """The four candidates of every job, by name."""
    scores = scores_of(original)
    nudge = _NUDGE * np.cos(np.arange(len(scores)))
    return {
        DO_NOTHING: with_scores(original, scores + nudge),
        RETRAIN: retrained,
        COLLAPSED: _levelled(original, nudge),
        CONSTANT: _levelled(original, _two_valued(original) + nudge),
    }


def scores_of(table: pa.Table) -> Array:
    """Membership scores [N]: logit-scaled confidence, or minus the loss per token of a language model."""
    if "nll" in table.column_names:
        return -_column(table, "nll") / np.maximum(_column(table, "tokens"), 1.0)
    return _column(table, "confidence")


def with_scores(table: pa.Table, scores: Array) -> pa.Table:
    """The same records with other membership scores [N]; of a language model with the losses that belong to them."""
    if "nll" not in table.column_names:
        return _replaced(table, "confidence", scores)
    made = _replaced(table, "nll", -scores * np.maximum(_column(table, "tokens"), 1.0))
    return _replaced(made, "loss", -scores)


def _column(table: pa.Table, name: str) -> Array:
    return np.asarray(pc.cast(table[name], pa.float64()).to_numpy(), dtype=np.float64)


def _replaced(table: pa.Table, name: str, values: Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def _part(table: pa.Table, name: str) -> Array:
    return np.asarray(pc.equal(table["set"], name).to_numpy(), dtype=bool)


def _levelled(original: pa.Table, scores: Array) -> pa.Table:
    """The original with other scores; a language model's are moved so that its held-out perplexity stays."""
    return with_scores(original, scores + (_level(original) - _level(with_scores(original, scores))))


def _level(table: pa.Table) -> float:
    """The score that stands for a language model's held-out perplexity; 0 for a classifier."""
    if "nll" not in table.column_names:
        return 0.0
    rows = _part(table, HELD_OUT)
    return -float(_column(table, "nll")[rows].sum() / np.maximum(_column(table, "tokens")[rows], 1.0).sum())


def _two_valued(table: pa.Table) -> Array:
    """As sure of every right answer as of any other; of every text above the held-out median as of any other."""
    if "nll" not in table.column_names:
        return np.asarray(np.where(_column(table, "correct") > 0, 2.0, -2.0), dtype=np.float64)
    scores, rows = scores_of(table), _part(table, HELD_OUT)
    low, middle, high = np.quantile(scores[rows], [0.25, 0.5, 0.75])
    return np.asarray(np.where(scores > middle, high, low), dtype=np.float64)


def shift_to(auc: float) -> float:
    """The shift in standard deviations by which normal scores have this AUC: sqrt(2) times its normal quantile."""
    return math.sqrt(2) * normal_quantile(auc)


def noise_by_references(
    original: pa.Table, sets: tuple[Judged, Judged], auc: float, draw: np.random.Generator
) -> pa.Table:
    """Forgotten and held-out scores drawn so that the calibrated attack's true AUC is `auc`; `sets` in table order.

    Each score is its references' mean plus normal noise in units of the record's own predictive standard deviation
    (`calibrated_scores` of `reference_auc`), forgotten ones `shift_to(auc)` higher: between two records that the
    references find equally hard the forgotten one is ahead with probability `auc`.
    """
    forget, held_out = sets
    pooled = pooled_variance(held_out.variance, held_out.count)
    drawn = {
        FORGET: noise(forget, pooled, draw, shift_to(auc)),
        HELD_OUT: noise(held_out, pooled, draw),
    }
    return _drawn_into(original, drawn)


def noise_by_population(original: pa.Table, auc: float, draw: np.random.Generator) -> pa.Table:
    """Normal scores of the original's held-out spread, forgotten ones shifted so that the plain AUC is `auc`."""
    scale = float(scores_of(original)[_part(original, HELD_OUT)].std())
    sizes = {name: int(_part(original, name).sum()) for name in (FORGET, HELD_OUT)}
    drawn = {name: scale * draw.normal(size=size) for name, size in sizes.items()}
    return _drawn_into(original, drawn | {FORGET: drawn[FORGET] + scale * shift_to(auc)})


def _drawn_into(original: pa.Table, drawn: dict[str, Array]) -> pa.Table:
    """These scores in place of those of the sets, in the order of their rows."""
    scores = scores_of(original).copy()
    for name, values in drawn.items():
        scores[_part(original, name)] = values
    return _levelled(original, scores)
