"""L1-sparse unlearning: go on training on the retained records while a penalty on all weights fades.

Jia et al. 2023 (arXiv:2304.04934), the penalty of their eq. 4 with its linear schedule:
    min_theta  mean_{x in R} CE(x; theta) + a (1 - t) ||theta||_1,    t from 0 to 1, from the served weights on:
sparser weights hold less of single records. The penalty enters by its subgradient a (1 - t) sign(theta).

Published settings for classifiers: SGD at 0.01, 10 of 182 epochs, a of about 5e-4 (by its order; it could not be
confirmed for every data set). Needs retained records alone. Costs `epochs` passes over them, forward and backward.
Fails where `penalty` is large: utility goes with the weights, and the last steps do not bring it back. As in
fine-tuning, nothing pushes records that are known by heart.
"""

from pathlib import Path

import torch

from service.catalogue.families.baselines import L1SparseParams
from workers.modeling.editing import Edit
from workers.modeling.problem import Context, Outcome, Problem


def l1_sparse(problem: Problem, params: L1SparseParams, context: Context, out_dir: Path) -> Outcome:
    """Write a fine-tuned, sparser model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    edit.run(
        edit.over_retained(params.epochs, visits=0),
        lambda step: edit.objective(edit.retain, step.retain),
        after_backward=lambda fraction: add_subgradient(edit.model, params.penalty * (1 - fraction)),
    )
    return edit.save(out_dir)


@torch.no_grad()
def add_subgradient(model: torch.nn.Module, weight: float) -> None:
    """Add weight * sign(theta) to the gradients of all weights that have one."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.add_(torch.sign(parameter), alpha=weight)
