"""How much single forgotten records weigh: an earlier state of a model held against the present one."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.modeling.curvature import Hessian, conjugate_gradients, gradient_sum
from workers.modeling.editing import Edit
from workers.modeling.heads import record_inputs

_PRODUCTS, _SAMPLE = 10, 128


@torch.no_grad()
def activation_scores(now: Edit, then: Edit) -> NDArray[np.float64]:
    """Mean product of what the head is given for each forgotten record [N], now and then. Two passes a record."""

    def score(row: int) -> float:
        one, other = (record_inputs(edit, edit.forget, [row])[1] for edit in (now, then))
        return float((one * other).mean())

    return np.array([score(row) for row in range(len(now.forget))])


def hessian_scores(
    now: Edit, then: Edit, parameters: tuple[list[nn.Parameter], list[nn.Parameter]], damping: float
) -> NDArray[np.float64]:
    """g^T (H + damping)^{-1} g_i for each forgotten record [N].

    g is the mean gradient of the forgotten records now, H the Hessian of the loss of a sample of retained ones now, g_i
    the gradient of each record then; `parameters` of both models. Costs a gradient a record and up to 10 products.
    """
    mean = gradient_sum(now, now.forget, parameters[0]) / len(now.forget)
    hessian = Hessian(now, now.retain, parameters[0], damping, _SAMPLE)
    solved = conjugate_gradients(hessian.product, mean, _PRODUCTS).x
    own = (gradient_sum(then, then.forget, parameters[1], [row]) for row in range(len(then.forget)))
    return np.array([float(gradient @ solved) for gradient in own])
