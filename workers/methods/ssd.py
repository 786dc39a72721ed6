"""Selective synaptic dampening: shrink the weights that matter for the forgotten records alone.

Foster, Schoepf, Brintrup 2024 (arXiv:2308.07707), eqs. 4 and 5. With I_F, I_D the diagonals of the empirical Fisher
information of forgotten records and of the data they were part of:
    theta_i <- min(lambda I_D,i / I_F,i, 1) theta_i    where I_F,i > alpha I_D,i
(alpha: `selection`, lambda: `dampening`).

Published settings: alpha 10, lambda 1 for classes of CIFAR (5 to 50 elsewhere); I_D stored at training. Here I_F and
I_R are taken anew, record by record, of a seeded sample of at most `sample` records each, and
    I_D = (|F| I_F + |R| I_R) / |D|,
which is what the whole data would give, so that no weight is chosen for want of a record that needs it. Public code
squares gradients of whole batches, in which records cancel. Nothing runs away: a weight can only shrink.
Needs nothing but both kinds of records, and fewer than one in alpha to forget: I_F / I_D is at most |D| / |F|, and what
cannot choose a weight is refused. Costs at most 2 `sample` forward and backward passes of single records.
Fails on random records: their information is that of the data, and next to nothing is done. Fails the other way where
few odd records are forgotten: so many weights matter more for them than for the data that the model goes with them.
Retained records are not repaired.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from service.catalogue.families.selective import SsdParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from workers.modeling.editing import Edit
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.sampling import seeded_rows
from workers.modeling.sensitivity import fisher_diagonal, weights_of


def ssd(problem: Problem, params: SsdParams, context: Context, out_dir: Path) -> Outcome:
    """Write a dampened model into `out_dir`.

    Raises BadParameters where so many records are forgotten that no weight can be chosen, Cancelled, JobError for
    weights that are not finite.
    """
    share = len(problem.forget) / (len(problem.forget) + len(problem.retain))
    if params.selection * share >= 1:
        raise BadParameters(
            f"ssd can choose no weight where {share:.1%} of the data go: selection must be below {1 / share:.3g}"
        )
    edit = Edit(problem, EditParams(), context)
    parts = (edit.forget, edit.retain)
    rows = [seeded_rows(len(part), params.sample, context.seed) for part in parts]
    forget, retain = (fisher_diagonal(edit, part, chosen) for part, chosen in zip(parts, rows, strict=True))
    everything = [share * ours + (1 - share) * others for ours, others in zip(forget, retain, strict=True)]
    weights = weights_of(edit)
    chosen = dampen(weights, forget, everything, params)
    edit.notes.append(f"{chosen} of {sum(weight.numel() for weight in weights)} weights dampened")
    return edit.save(out_dir)


@torch.no_grad()
def dampen(weights: list[nn.Parameter], forget: list[Tensor], everything: list[Tensor], params: SsdParams) -> int:
    """Scale the chosen weights in place; answers how many there were."""
    count = 0
    for weight, ours, all_ in zip(weights, forget, everything, strict=True):
        chosen = ours > params.selection * all_
        factor = (params.dampening * all_ / ours).clamp(max=1.0)
        weight.mul_(torch.where(chosen, factor, torch.ones_like(factor)))
        count += int(chosen.sum())
    return count
