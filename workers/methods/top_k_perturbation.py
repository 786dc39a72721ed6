"""Top-K perturbation: noise on the weights that the forgotten records' loss depends on most, then repair.

Zuo, Tang, Li, Datta 2025 (IEEE TKDE), arXiv:2401.04385, read from its abstract and a third-party implementation:
    s_j = (d L_F / d theta_j)^2,   theta_j <- theta_j + N(0, sigma^2) for the K largest s_j,
then a short training on CE(R) + 0.1 JSD(theta(x_F), theta_0(x_F)). The second term keeps the old answers on the
forgotten records, which is what a deletion must not do: its weight is 0 here unless it is asked for. (The third-party
code compares the weights with the saliency's threshold; here the saliencies are compared.) sigma is given in root mean
squares of each tensor, or absolutely as in the paper, whose values could not be confirmed.
Needs retained records for the repair. Costs one pass over the forgotten records and `epochs` / epochs of the training.
Fails on records that are like the others: what they depend on, all depend on, so that the noise is aimed at nothing,
and the repair brings memorised records back as far as their neighbours support them. How much is forgotten follows
from sigma and the length of the repair alone.
"""

from pathlib import Path

from service.catalogue.families.founding import TopKPerturbationParams
from workers.modeling.curvature import gradient_sum
from workers.modeling.editing import Edit
from workers.modeling.layers import parameters_of
from workers.modeling.perturbing import frozen, perturb, repair
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.sensitivity import largest_share


def top_k_perturbation(problem: Problem, params: TopKPerturbationParams, context: Context, out_dir: Path) -> Outcome:
    """Write the repaired model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    parameters = parameters_of(edit.model, "all")
    gradient = gradient_sum(edit, edit.forget, parameters)
    parts = gradient.split([p.numel() for p in parameters])
    # The largest squares are those of the largest magnitude.
    masks = largest_share([part.view_as(p) for part, p in zip(parts, parameters, strict=True)], params.share)
    before = frozen(edit, params)
    changed = perturb(parameters, masks, params, context.seed)
    edit.notes.append(f"{changed} of {len(gradient)} weights were perturbed")
    repair(edit, before, params)
    return edit.save(out_dir)
