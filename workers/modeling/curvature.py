"""Gradients and Hessian-vector products of records' losses with respect to some of a model's parameters.

Everything is a flat vector over the chosen parameters, in their order. Hessians are never formed: a product costs two
backward passes (Pearlmutter 1994), a solution as many products as conjugate gradients take (Hestenes and Stiefel
1952; Steihaug 1983 for what to do where the curvature is negative).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.layers import flat
from workers.modeling.problem import Context
from workers.modeling.records import chunks
from workers.modeling.sampling import seeded_rows

_BATCH = 128
_SAMPLE = 21

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found: x, |Ax - b| / |b|, products taken, and whether they met negative curvature."""

    x: Tensor
    residual: float
    products: int
    negative: bool


def gradient_sum(
    edit: Edit,
    part: Encoded,
    parameters: Sequence[nn.Parameter],
    rows: Sequence[int] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Tensor:
    """Sum over these records (None: all) of the gradient of each one's loss, nats, times its weight (None: 1).

    Raises Cancelled.
    """
    chosen = list(range(len(part))) if rows is None else list(rows)
    shares = torch.as_tensor(np.ones(len(chosen)) if weights is None else weights, dtype=torch.float32)
    total = torch.zeros(sum(p.numel() for p in parameters), device=edit.context.device)
    for piece in chunks(len(chosen), _BATCH):
        edit.context.ask("taking gradients")
        losses = edit.losses(part, [chosen[at] for at in piece])
        weighted = losses @ shares[piece.start : piece.stop].to(losses)
        total += flat(torch.autograd.grad(weighted, list(parameters)))
        edit.backward += 1
    return total


class Hessian:
    """The Hessian of the mean loss over some records plus `damping`/2 times the squared norm of the parameters."""

    def __init__(
        self, edit: Edit, part: Encoded, parameters: Sequence[nn.Parameter], damping: float, sample: int
    ) -> None:
        self._edit, self._part, self._parameters, self._damping = edit, part, list(parameters), damping
        self._rows = seeded_rows(len(part), sample, edit.context.seed, _SAMPLE)

    def product(self, vector: Tensor) -> Tensor:
        """H v. Raises Cancelled."""
        total = self._damping * vector
        # The fused attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for piece in chunks(len(self._rows), _BATCH):
                self._edit.context.ask("taking products with the Hessian")
                losses = self._edit.losses(self._part, [self._rows[at] for at in piece])
                first = torch.autograd.grad(losses.sum() / len(self._rows), self._parameters, create_graph=True)
                second = torch.autograd.grad(flat(first) @ vector, self._parameters)
                total = total + flat(second)
                self._edit.backward += 2
        return total


def conjugate_gradients(
    product: Product, target: Tensor, most: int, tolerance: float = 1e-6, context: Context | None = None
) -> Solution:
    """Solve A x = `target` for a symmetric A given by its products, with at most `most` of them.

    Where A is not positive definite along a direction, what was found before it is the answer: a quadratic has no
    minimum there. `context` is asked before each product; raises Cancelled.
    """
    x, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), float(target @ target)
    scale, products = max(size**0.5, 1e-30), 0
    while products < most and size**0.5 > tolerance * scale:
        if context is not None:
            context.ask(f"solving a system, after {products} products")
        image = product(direction)
        products += 1
        curvature = float(direction @ image)
        if not curvature > 0:
            # Nothing was found yet: the way down is all that is known.
            return Solution(x if products > 1 else target.clone(), size**0.5 / scale, products, True)
        step = size / curvature
        x, residual = x + step * direction, residual - step * image
        before, size = size, float(residual @ residual)
        direction = residual + size / before * direction
    return Solution(x, size**0.5 / scale, products, False)
