"""Datamodels: what a model's outputs would be without some of its training records, predicted before any step.

Georgiev et al. 2024, arXiv:2410.23232 (datamodels after Ilyas et al. 2022, arXiv:2202.00622): for a record x,
    f_x(S) ~ b_x + sum_{i in S} beta_{x,i},
fitted over models trained on random subsets S, so that f_x without F is f_x(all) - sum_{i in F} beta_{x,i}. The paper
takes thousands of models. A pool has tens, fewer than there are records, so that the sum over F is fitted in one of
three ways:
- "ridge": all records as features, minimum norm. With K models of N records it finds about K/N of what a record does to
  itself, so it takes pools of hundreds and more.
- "lasso": the forgotten records alone as features, sparse (L1), for few of them.
- "own": two features, whether x itself was in S, and what share of the rest of F was: x's own effect is then nearly the
  difference of two means, and all other records of F are taken to matter alike.
Penalties are chosen by leaving one model out. Effects are those among half of the data, where each record weighs more.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import BadParameters

Array = NDArray[np.float64]
Estimator = Literal["own", "ridge", "lasso"]

_PENALTIES = np.logspace(-3, 3, 13)
_LASSO_LIMIT = 200_000
"""Forgotten records times outputs that a lasso is still fitted for, one output after the other."""


def forget_effects(
    trained: NDArray[np.bool_], outputs: Array, forgotten: NDArray[np.int64], own: NDArray[np.int64], how: Estimator
) -> Array:
    """Sum of the effects of the forgotten records on each output [X]: what is lost when they leave the training data.

    `trained` [K, N] says which records each model saw, `outputs` [K, X] what it says, `forgotten` are columns of
    `trained`, `own` [X] the column of the record that an output belongs to. Raises BadParameters for fewer than four
    models, and where a lasso would not end.
    """
    if len(outputs) < 4:
        raise BadParameters(f"datamodels need four models at least, there are {len(outputs)}")
    if how == "ridge":
        return _ridge(trained, outputs, forgotten)
    if how == "lasso":
        return _lasso(trained, outputs, forgotten)
    return _own(trained, outputs, forgotten, own)


def _ridge(trained: NDArray[np.bool_], outputs: Array, forgotten: NDArray[np.int64]) -> Array:
    """Kernel ridge: beta = Z^T (Z Z^T + l)^-1 f with centred Z [K, N] and f [K, X], one penalty for all outputs."""
    inside = trained.astype(np.float64)
    centred = inside - inside.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values = np.maximum(values, 0.0)
    turned = vectors.T @ (outputs - outputs.mean(axis=0))
    scale = max(float(values.max()), 1e-12)
    losses = [_left_out(values, vectors, turned, penalty * scale) for penalty in _PENALTIES]
    best = float(_PENALTIES[int(np.argmin(losses))]) * scale
    dual = vectors @ (turned / (values + best)[:, None])
    return np.asarray(centred[:, forgotten].sum(axis=1) @ dual, dtype=np.float64)


def _left_out(values: Array, vectors: Array, turned: Array, penalty: float) -> float:
    """Mean squared error of leaving one model out, by the hat matrix (with the mean as one more fitted number)."""
    shrink = values / (values + penalty)
    fitted = vectors @ (shrink[:, None] * turned)
    actual = vectors @ turned
    hat = np.square(vectors) @ shrink + 1.0 / len(values)
    return float(np.mean(np.square((actual - fitted) / np.maximum(1.0 - hat, 1e-6)[:, None])))


def _lasso(trained: NDArray[np.bool_], outputs: Array, forgotten: NDArray[np.int64]) -> Array:
    from sklearn.linear_model import LassoCV

    if len(forgotten) * outputs.shape[1] > _LASSO_LIMIT:
        raise BadParameters("a lasso for so many records takes too long; use the estimator 'own' or 'ridge'")
    inside = trained[:, forgotten].astype(np.float64)
    folds = min(5, len(inside))
    found = [LassoCV(cv=folds, n_jobs=1, max_iter=5000).fit(inside, column).coef_.sum() for column in outputs.T]
    return np.asarray(found, dtype=np.float64)


def _own(trained: NDArray[np.bool_], outputs: Array, forgotten: NDArray[np.int64], own: NDArray[np.int64]) -> Array:
    """For each output a ridge of two centred features: its own record inside, and the share of the others of F."""
    inside = trained[:, own].astype(np.float64)
    mine = np.isin(own, forgotten)
    among = trained[:, forgotten].astype(np.float64).sum(axis=1)[:, None]
    others = len(forgotten) - mine.astype(np.float64)
    share = (among - inside * mine) / np.maximum(others, 1.0)
    first, second, target = (part - part.mean(axis=0) for part in (inside, share, outputs))
    best, smallest = np.zeros(outputs.shape[1]), np.inf
    for penalty in _PENALTIES:
        effect, error = _two(first, second, target, penalty, mine)
        if error < smallest:
            best, smallest = effect, error
    return best


def _two(first: Array, second: Array, target: Array, penalty: float, mine: NDArray[np.bool_]) -> tuple[Array, float]:
    """(effects [X], leave-one-out error) of a ridge on two features; only the shared one is penalised, since it is the
    one that few models tell little of."""
    count = len(target)
    a, b, c = (first**2).sum(0) + 1e-9, (first * second).sum(0), (second**2).sum(0) + penalty
    u, v = (first * target).sum(0), (second * target).sum(0)
    determinant = a * c - b * b
    own, shared = (c * u - b * v) / determinant, (a * v - b * u) / determinant
    fitted = own * first + shared * second
    hat = (c * first**2 - 2 * b * first * second + a * second**2) / determinant + 1.0 / count
    error = float(np.mean(np.square((target - fitted) / np.maximum(1.0 - hat, 1e-6))))
    return np.where(mine, own, 0.0) + shared, error
