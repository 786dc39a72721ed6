"""Random-k perturbation: noise on weights drawn at random, then repair.

Zuo, Tang, Li, Datta 2025 (IEEE TKDE), arXiv:2401.04385: m_j ~ Bernoulli(k), theta_j <- theta_j + m_j N(0, sigma^2),
then the repair of Top-K (top_k_perturbation names what is not confirmed of either). The paper's cheaper variant: it
looks at no forgotten record at all. Needs retained records for the repair. Costs `epochs` / epochs of the training.
Fails as Top-K does, and more: the noise forgets nobody in particular, so that forgotten and retained records fade
alike and the repair brings back both what the retained ones say and what is known by heart.
"""

from pathlib import Path

import torch

from service.catalogue.families.founding import RandomKPerturbationParams
from workers.modeling.devices import generator
from workers.modeling.editing import Edit
from workers.modeling.layers import parameters_of
from workers.modeling.perturbing import frozen, perturb, repair
from workers.modeling.problem import Context, Outcome, Problem

_MASK = 33


def random_k_perturbation(
    problem: Problem, params: RandomKPerturbationParams, context: Context, out_dir: Path
) -> Outcome:
    """Write the repaired model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    parameters = parameters_of(edit.model, "all")
    draw = generator(context.seed, _MASK)
    masks = [(torch.rand(p.shape, generator=draw) < params.share).to(p.device) for p in parameters]
    before = frozen(edit, params)
    changed = perturb(parameters, masks, params, context.seed)
    edit.notes.append(f"{changed} of {sum(p.numel() for p in parameters)} weights were perturbed")
    repair(edit, before, params)
    return edit.save(out_dir)
