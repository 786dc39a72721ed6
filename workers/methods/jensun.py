"""JensUn: both sets by the Jensen-Shannon divergence, which is bounded.

Singh, Mueller, Croce, Hein 2025 (arXiv:2509.02820):
    L = gamma * JSD(edited, target) on F + alpha * JSD(edited, served) on R,  each at most log 2 a prediction.
Published: the target is certainty of a refusal's tokens ("No idea", repeated over the answer positions), gamma = alpha
= 0.5, for language models. That is `target="refusal"`.

The default `target="flat"`, the uniform answer, is ours: a model that never saw a record does not refuse, so that a
refusal tells which records were deleted; and it fits classifiers. On answer positions alone, with one token a position
(the first public code gave each refusal token the probability 1 at every position, padding included). With
`bound="record"` a record adds nothing once it loses as much as the unseen record of its rank, and the run ends when all
do.
Needs a held-out set for the bound, and the memory of a second model (none with `lora_rank`). Costs 3 forward and 1
backward pass a step. Fails slowly: where the target's probability is near 0 so is the gradient, and a refusal may need
more passes than the default.
"""

from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.language import JensUnParams
from service.errors import BadParameters
from workers.modeling.answers import Answers
from workers.modeling.divergences import jensen_shannon, jensen_shannon_to_one
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.frozen import Frozen
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.retaining import MENDING


def jensun(problem: Problem, params: JensUnParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`.

    Raises BadParameters for a refusal that a classifier cannot give, Cancelled, JobError for a loss that is not finite.
    """
    edit = Edit(problem, params, context)
    refusal = _tokens(edit, params)
    bounds, frozen = Bounds(edit, params.bound == "record"), Frozen(edit)

    def loss(step: Step) -> Tensor:
        found = edit.answers(edit.forget, step.forget)
        drawn = to_flat(found.log_probs) if refusal is None else to_text(found, refusal)
        push = found.means(drawn) * bounds.weights(step.forget, found.record_losses())
        if not params.alpha:
            return params.gamma * push.mean()
        served = frozen.answers(edit.retain, step.retain).log_probs
        kept = jensen_shannon(served, edit.answers(edit.retain, step.retain).log_probs)
        return params.gamma * push.mean() + params.alpha * kept.mean()

    edit.run(edit.over_forgotten(params.passes), loss, finished=bounds.reached, least=MENDING)
    return edit.save(out_dir)


def to_flat(log_probs: Tensor) -> Tensor:
    """JSD of each prediction [M, C] to the uniform answer [M]."""
    return jensen_shannon(log_probs, torch.full_like(log_probs, -torch.log(torch.tensor(log_probs.shape[1])).item()))


def to_text(found: Answers, tokens: Tensor) -> Tensor:
    """JSD of each prediction to certainty of the token whose turn it is [M]: the text starts anew in each record."""
    counts = torch.bincount(found.rows, minlength=found.records)
    place = torch.arange(len(found.rows), device=found.rows.device) - (counts.cumsum(0) - counts)[found.rows]
    wanted = tokens[place % len(tokens)]
    return jensen_shannon_to_one(found.log_probs.gather(1, wanted[:, None])[:, 0])


def _tokens(edit: Edit, params: JensUnParams) -> Tensor | None:
    if params.target == "flat":
        return None
    if not isinstance(edit.task, CausalLanguageModelling):
        raise BadParameters("target: a refusal is for language models: use flat")
    # A space before it, as between a prompt and its completion.
    ids = edit.task.tokenizer(f" {params.refusal}", add_special_tokens=False)["input_ids"]
    if not ids:
        raise BadParameters("refusal: the model's tokenizer makes no token of it")
    return torch.tensor(ids, device=edit.context.device)
