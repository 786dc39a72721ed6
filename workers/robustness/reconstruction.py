"""Reconstruction: what the old and the new version together give away of the one record that was deleted.

Our own red team on the pair of versions; that the new version is an exact retrain does not help, it is what makes the
difference so clean. The defence is in how versions are published: retire the old one, delete several people at once.

Linear heads (HRec; Bertran et al., arXiv 2405.20272). With A = X'X + lambda I of the retained records, ridge regression
without the record (x, y) satisfies

    A (W_new - W_old) = x (x'W_old - y')        W [d, k], x [d], y [k]

so that A times the difference is the record's direction, whatever y was, and its other factor the residual, farthest
from 0 at the true class as a rule. An attacker does not know A, but m public records P of the same kind estimate it:
A ~ (n / m) P'P + lambda I, the better the more of them there are for each of the d features.

Other networks (gradient matching; Zhu et al., arXiv 1906.08935, "DLG"): the difference of the versions is close to the
gradient of the record's loss. The attacker looks for an input whose gradient points the same way (cosine as in Geiping
et al., arXiv 2003.14053), with the label read off the last bias, whose gradient is negative at the true class alone
(Zhao et al., arXiv 2001.02610). It works on small smooth networks and on one record; on averages over many, or after a
whole training of its own, a difference says little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]

_STEPS = 300
_SMALLEST = 1e-30


def ridge(inputs: Array, targets: Array, penalty: float) -> Array:
    """Weights [d, k] of ridge regression of targets [n, k] on inputs [n, d]: (X'X + penalty I)^-1 X'Y."""
    weights = np.linalg.solve(curvature(inputs, penalty), inputs.T @ targets)
    return np.asarray(weights, dtype=np.float64)


def curvature(inputs: Array, penalty: float, records: int | None = None) -> Array:
    """X'X + penalty I [d, d] of inputs [m, d], scaled to as many `records` as were trained on (None: m).

    With public inputs it is the attacker's estimate of what the trained records' own would be.
    """
    scale = 1.0 if records is None else records / len(inputs)
    return np.asarray(scale * (inputs.T @ inputs) + penalty * np.eye(inputs.shape[1]), dtype=np.float64)


def downdate(weights: Array, inverse: Array, record: Array, target: Array) -> Array:
    """Ridge weights [d, k] without one record [d] with target [k], by a rank-one downdate: exact unlearning.

    `inverse` [d, d] is (X'X + penalty I)^-1 with the record (Sherman and Morrison 1950). Raises ValueError where the
    record alone determines a weight (leverage 1), so that nothing is left without it.
    """
    towards = inverse @ record
    left = 1.0 - float(record @ towards)
    if left <= 1e-12:
        raise ValueError("the record has leverage 1: without it there is no unique solution")
    return np.asarray(weights - np.outer(towards, target - record @ weights) / left, dtype=np.float64)


@dataclass(frozen=True)
class Direction:
    """What HRec finds: the record's direction [d] of unit length, its sign unknown, and the class it guesses."""

    vector: Array
    label: int


def recovered_direction(old: Array, new: Array, curvature_matrix: Array) -> Direction:
    """The deleted record's direction from two versions [d, k] of a linear head and a curvature [d, d].

    The leading singular vector of the product: with the exact curvature it has rank one. The label is the class whose
    residual is farthest from 0; with one output it is 0. Raises ValueError for two versions that are the same.
    """
    product = curvature_matrix @ (new - old)
    left, sizes, right = np.linalg.svd(product, full_matrices=False)
    if sizes[0] <= _SMALLEST:
        raise ValueError("the two versions are the same: there is nothing to recover a record from")
    return Direction(np.asarray(left[:, 0]), int(np.argmax(np.abs(right[0]))))


def cosine(first: Array, second: Array) -> float:
    """|cos| of two vectors of any shape: 1 is the same direction, up to sign."""
    a, b = first.ravel(), second.ravel()
    return float(abs(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), _SMALLEST))


@dataclass(frozen=True)
class Matched:
    """What gradient matching found: an input, its label, and the cosine of its gradient with the difference."""

    record: Array
    label: int
    agreement: float


def match_gradient(
    old: nn.Module, difference: Sequence[Tensor], shape: Sequence[int], seed: int, steps: int = _STEPS
) -> Matched:
    """Look for the input [*shape] whose loss under the old model has a gradient along new - old weights.

    `difference` has one tensor for each parameter of `old`, in their order, the last being the bias of the layer that
    gives the logits; `old` maps [1, *shape] to logits [1, classes] and must be smooth (no ReLU), since its gradient is
    differentiated once more. L-BFGS from a random start in the precision of `old`. Removing a record moves weights
    along its gradient: up its loss. Raises ValueError where the difference is zero.
    """
    wanted = torch.cat([part.detach().flatten() for part in difference])
    length = wanted.norm()
    if float(length) <= _SMALLEST:
        raise ValueError("the two versions are the same: there is nothing to recover a record from")
    label = torch.argmin(difference[-1]).reshape(1)
    start = torch.Generator().manual_seed(seed)
    guess = (0.1 * torch.randn(1, *shape, generator=start, dtype=torch.float64)).to(wanted.dtype).requires_grad_()
    parameters = list(old.parameters())

    def distance() -> Tensor:
        loss = nn.functional.cross_entropy(old(guess), label)
        parts = torch.autograd.grad(loss, parameters, create_graph=True)
        found = torch.cat([part.flatten() for part in parts])
        apart: Tensor = 1.0 - found @ wanted / (found.norm() * length).clamp(min=_SMALLEST)
        return apart

    _minimise(distance, guess, steps)
    return Matched(guess.detach()[0].double().numpy(), int(label), 1.0 - float(distance().detach()))


def _minimise(function: Callable[[], Tensor], guess: Tensor, steps: int) -> None:
    optimizer = torch.optim.LBFGS(
        [guess], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = function()
        (guess.grad,) = torch.autograd.grad(value, [guess])
        return value.detach()

    optimizer.step(closure)
