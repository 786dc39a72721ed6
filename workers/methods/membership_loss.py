"""Membership loss: train against an attack that tells the forgotten records from unseen ones.

"Silver Linings" (as founding papers summarise it: a membership term in the loss, on weights and activations; the text
itself could not be read). The reading here:
    L = CE(R) + weight * mean_{i in F} ReLU(a . z_i + b),
with z_i what the attack looks at: the log-odds of the record's loss and the entropy of its answers ("answers"), or what
the head is given ("activations"), and (a, b) a logistic regression, fitted anew every `refresh` steps, that tells
forgotten from held-out records of the selection half. A record that it calls no member (a . z + b <= 0) adds nothing,
nor does one that already loses what the unseen record of its rank does, so that the term cannot run away. Published
rates and weights are not known; the defaults are this service's.

Whatever is trained against an attack is no longer measured by it: the population membership AUC uses the very scores
that the term flattens, and so does every attack on the canaries that are deleted along, which are among the forgotten
records here. So this method's entry in the catalogue names all of these, and a candidate that it made has to be judged
by others (reference models); without them its evaluation stays inconclusive.
Needs a held-out set. Costs `epochs` / epochs of the training, `visits` passes over the forgotten records, and a pass
over both samples at each fit. Fails in that sense and in another: with few unseen records the attack overfits and its
term says little.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.founding import MembershipLossParams
from workers.modeling.answers import Answers
from workers.modeling.batching import Encoded
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.heads import record_inputs
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.records import chunks
from workers.modeling.sampling import seeded_rows

_SAMPLE, _LIMIT, _BATCH = 35, 500, 256
_RIDGE, _NEWTON_STEPS = 0.01, 12
_LEAST = 1e-6


def membership_loss(problem: Problem, params: MembershipLossParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    term = _Term(edit, params)

    def loss(step: Step) -> Tensor:
        kept = edit.objective(edit.retain, step.retain)
        return kept + params.weight * term(step.forget) if step.forget else kept

    edit.run(edit.over_retained(params.epochs, params.visits), loss)
    edit.notes.append("trained against the population membership attack, which may not judge the result")
    return edit.save(out_dir)


@dataclass(frozen=True)
class Attack:
    """Log-odds of being a member: (z - center) / spread . slope + offset."""

    center: Tensor
    spread: Tensor
    slope: Tensor
    offset: Tensor

    def log_odds(self, seen: Tensor) -> Tensor:
        """Of each record [B] from what the attack looks at [B, width]."""
        return (seen - self.center) / self.spread @ self.slope + self.offset


def fitted(members: Tensor, others: Tensor) -> Attack:
    """Ridge logistic regression of members [N, width] against others [M, width], both sides of equal weight."""
    both = torch.cat([members, others]).double()
    center, spread = both.mean(dim=0), both.std(dim=0).clamp_min(1e-6)
    inputs = torch.cat([(both - center) / spread, torch.ones(len(both), 1, dtype=both.dtype, device=both.device)], 1)
    truth = torch.cat([torch.ones(len(members)), torch.zeros(len(others))]).to(inputs)
    shares = torch.where(truth > 0, 0.5 / len(members), 0.5 / len(others))
    ridge = torch.full((inputs.shape[1],), _RIDGE, dtype=both.dtype, device=both.device)
    ridge[-1] = 1e-9
    weights = torch.zeros_like(ridge)
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(inputs @ weights)
        slope = inputs.T @ (shares * (p - truth)) + ridge * weights
        curvature = (inputs * (shares * p * (1 - p))[:, None]).T @ inputs + torch.diag(ridge)
        weights = weights - torch.linalg.solve(curvature, slope)
    return Attack(center.float(), spread.float(), weights[:-1].float(), weights[-1].float())


def looked_at(found: Answers) -> Tensor:
    """Log-odds of each record's loss and entropy of its answers [B, 2]."""
    log_probs = found.logits.log_softmax(dim=1)
    entropy = found.means(-(log_probs.exp() * log_probs).sum(dim=1))
    losses = found.record_losses().clamp_min(_LEAST)
    # log(exp(loss) - 1), which as it stands is infinite from 89 nats on.
    return torch.stack([losses + torch.log(-torch.expm1(-losses)), entropy], dim=1)


class _Term:
    """The membership term, with its attack as it was last fitted; a run that was interrupted fits it anew."""

    def __init__(self, edit: Edit, params: MembershipLossParams) -> None:
        self._edit, self._params = edit, params
        self._bounds = Bounds(edit, bounded=True)
        self._attack: Attack | None = None
        self._members = seeded_rows(len(edit.forget), _LIMIT, edit.context.seed, _SAMPLE)

    def __call__(self, rows: list[int]) -> Tensor:
        """mean ReLU of the log-odds of these forgotten records that still lie below what unseen ones lose."""
        if self._attack is None or self._edit.steps % self._params.refresh == 0:
            self._attack = self._fit()
        found, seen = self._seen(self._edit.forget, rows)
        push = torch.relu(self._attack.log_odds(seen))
        return (push * self._bounds.weights(rows, found.record_losses())).mean()

    @torch.no_grad()
    def _fit(self) -> Attack:
        assert self._edit.selection is not None  # noqa: S101  (the catalogue's needs)
        others = list(range(min(len(self._edit.selection), _LIMIT)))
        return fitted(self._all(self._edit.forget, self._members), self._all(self._edit.selection, others))

    def _all(self, part: Encoded, rows: list[int]) -> Tensor:
        pieces = [[rows[at] for at in piece] for piece in chunks(len(rows), _BATCH)]
        return torch.cat([self._seen(part, piece)[1] for piece in pieces])

    def _seen(self, part: Encoded, rows: list[int]) -> tuple[Answers, Tensor]:
        if self._params.layer == "activations":
            found, inputs = record_inputs(self._edit, part, rows)
            return found, inputs.float()
        found = self._edit.answers(part, rows)
        return found, looked_at(found)
