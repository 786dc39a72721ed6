"""NegGrad+ with a cap: ascend on forgotten records while descending on retained ones.

Kurmanji, Triantafillou, Hayes, Triantafillou 2023, arXiv:2302.09880: L = alpha * CE(R) - (1 - alpha) * CE(F),
unbounded, with the forget set cycled over the retain epoch, so that the same few records are ascended hundreds of
times and the setting that does nothing at 10 % of the data destroys the model at 10 records.

This reading: L = alpha * CE(R) - (1 - alpha) * mean_i min(l_i, C_i). A record adds no gradient once its loss has
reached its cap C_i (its target from the selection records plus `cap_deviations` standard deviations), and the run is
scheduled by visits of the forgotten records, not by retain epochs. AdamW instead of SGD at 0.01, so that the served
model's own learning rate carries over.
"""

from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.descent import NegativeGradientPlusParams
from workers.modeling.descent import Targets, descend
from workers.modeling.loading import load_model, save_model
from workers.modeling.problem import Context, Outcome, Problem

# Chosen on noisy digits and a memorising GPT-2; a token's loss answers to a smaller push than an image's.
_RETAIN_WEIGHT = {"image-classification": 0.7, "text-classification": 0.7, "causal-lm": 0.85}


def negative_gradient_plus(
    problem: Problem, params: NegativeGradientPlusParams, context: Context, out_dir: Path
) -> Outcome:
    """Write an unlearned model into `out_dir`. Raises what `descend` raises."""
    loaded = load_model(problem.base_dir, problem.task_name, context.device)

    def term(losses: Tensor, targets: Targets) -> Tensor:
        return capped_ascent(losses, targets, params.cap_deviations)

    alpha = params.alpha or _RETAIN_WEIGHT[problem.task_name]
    outcome = descend(loaded, problem, params, term, lambda fraction: 1 - alpha, context)
    save_model(loaded, out_dir)
    return outcome


def capped_ascent(losses: Tensor, targets: Targets, deviations: float) -> Tensor:
    """-mean_i min(l_i, C_i) with C_i = T_i + deviations * s, nats: zero gradient for records at their cap."""
    return -torch.minimum(losses, targets.losses + deviations * targets.spread).mean()
