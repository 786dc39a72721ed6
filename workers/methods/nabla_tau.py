"""nabla-tau: raise the loss of the forgotten records to that of unseen ones, and stop there.

Trippa, Campagnano, Bucarelli, Tolomei, Silvestri 2024, arXiv:2403.14339:
    L = alpha * ReLU(L_V - L_F)^2 + (1 - alpha) * L_R,    alpha_0 = 5/3 * |F|/|D|, decaying linearly to 0,
with L_V the mean loss on held-out records under the current weights, renewed every few passes and constant in
between, AdamW, learning rate decaying linearly to a tenth. `hinge="batch", target="mean", alpha_floor=0` is that.

The default differs where the paper's reading fails (measured on noisy digits and a memorising GPT-2):
- `hinge="record"`: alpha * mean_i ReLU(T_i - l_i)^2 / s, a hinge per record, so that easy records do not pay for hard
  ones; s, the standard deviation of the selection losses, keeps the term in nats for any task.
- `target="quantile"`: T_i is the selection loss of the same rank instead of L_V (see workers.modeling.descent).
- `alpha_floor`: the rule alone makes the term negligible for small sets (3e-4 for 10 records of 50,000).
"""

from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.descent import NablaTauParams
from workers.modeling.descent import Targets, descend
from workers.modeling.loading import load_model, save_model
from workers.modeling.problem import Context, Outcome, Problem

_CEILING = 0.9


def nabla_tau(problem: Problem, params: NablaTauParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises what `descend` raises."""
    loaded = load_model(problem.base_dir, problem.task_name, context.device)
    term = record_hinge if params.hinge == "record" else batch_hinge
    first = first_alpha(len(problem.forget), len(problem.retain), params)
    outcome = descend(loaded, problem, params, term, lambda fraction: first * (1 - fraction), context)
    save_model(loaded, out_dir)
    return outcome


def first_alpha(forget: int, retain: int, params: NablaTauParams) -> float:
    """alpha_0 = max(scale * |F|/|D|, floor), at most 0.9 so that the retain term never vanishes."""
    return min(max(params.alpha_scale * forget / (forget + retain), params.alpha_floor), _CEILING)


def record_hinge(losses: Tensor, targets: Targets) -> Tensor:
    """mean_i ReLU(T_i - l_i)^2 / s, nats."""
    return (torch.relu(targets.losses - losses) ** 2).mean() / targets.spread


def batch_hinge(losses: Tensor, targets: Targets) -> Tensor:
    """ReLU(mean T - mean l)^2, the paper's form when the targets are the mean selection loss."""
    return torch.relu(targets.losses.mean() - losses.mean()) ** 2
