"""SalUn: random labels, learnt by the salient half of the weights.

Fan, Liu, Zhang, Wong, Wei, Liu 2024 (arXiv:2310.12508), section 4:
    mask = 1 for the `density` of weights with the largest |sum over batches of grad CE(F; theta_0)|, over all layers,
    min over the masked weights of  mean_{x in R} CE(x, y; theta) + mean_{x in F} CE(x, y'; theta),    y' != y.
The sum is of signed gradients, as in the authors' code, and no step is made while it is taken.

Published settings: SGD at 0.013 (0.006 in an earlier version), 10 epochs, half of the weights, 10 % of CIFAR-10; the
authors advise to search the rate, and replications found too little forgetting at theirs. `bound` as in
workers/methods/random_label.py.
Needs labels. Costs one pass over the forgotten records for the mask, then as random labels do.
Fails like random labels: too much on few records without the bound, nothing on records that were wrongly labelled
from the start.
"""

from pathlib import Path

from torch import Tensor, nn

from service.catalogue.families.selective import SalunParams
from workers.modeling.editing import Edit
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.relabelling import Relabelled
from workers.modeling.sensitivity import largest_share, summed_gradients, weights_of


def salun(problem: Problem, params: SalunParams, context: Context, out_dir: Path) -> Outcome:
    """Write an edited model into `out_dir`; weights outside the mask stay as they are, bit for bit.

    Raises BadParameters for a model of one class, Cancelled, JobError for a loss that is not finite.
    """
    edit = Edit(problem, params, context)
    relabelled = Relabelled(edit, params.bound == "record")
    gradients = summed_gradients(edit, edit.forget, edit.forget.in_order(edit.settings.forget_batch))
    masks = largest_share(gradients, params.density)
    weights = weights_of(edit)
    edit.run(
        edit.over_retained(params.epochs, params.visits),
        relabelled.loss,
        after_backward=lambda _: keep_masked(weights, masks),
    )
    return edit.save(out_dir)


def keep_masked(weights: list[nn.Parameter], masks: list[Tensor]) -> None:
    """Set the gradients of weights outside the masks to 0; neither optimiser moves a weight that never had another."""
    for weight, mask in zip(weights, masks, strict=True):
        if weight.grad is not None:
            weight.grad.mul_(mask)
