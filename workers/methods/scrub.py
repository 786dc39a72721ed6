"""SCRUB: disobey the served model on forgotten records, obey it on retained ones, and rewind.

Kurmanji, P. and E. Triantafillou, Triantafillou 2023 (arXiv:2302.09880), section 3. With d(x) = T^2 KL(p_0 || p_theta):
    max step   ascend  mean_{x in F} d(x)                                       one pass over F
    min step   descend gamma mean_{x in R} CE(x) + alpha mean_{x in R} d(x)     one pass over R
The first rounds have both steps, the last ones a min step alone. A max step before anything else would do nothing:
the gradient of d is 0 where student and teacher agree, as they do exactly in evaluation mode; so the first round has a
min step alone. Public code either trains the teacher, or counts epochs so that no run ends on repair; neither here.

SCRUB+R (`rewind`): after each round the loss of F is compared with that of held-out records of the same classes, and
the nearest state is kept. The paper compares errors; losses are finer where sets are small.

Published settings: SGD or Adam at 5e-4 (0.005 in RUM), 6 rounds of which 3 have a max step, T 4, gamma 1, alpha 0.5;
for larger models alpha 0.001, gamma 0.99. Default here: d counts up to log C, and only while the record's loss lies
below that of unseen records of its rank (`bound`); `bound="none"` is the published form.
Needs a held-out set. Costs rounds * round_epochs passes over R, twice forward and once backward, `max_rounds` passes
over F, and a measurement of F and of unseen records a round.
Fails at small learning rates by doing next to nothing, without the bound by an unstable max step.
"""

import math
from pathlib import Path

from torch import Tensor

from service.catalogue.families.baselines import ScrubParams
from workers.modeling.distillation import Teacher, divergence
from workers.modeling.editing import Bounds, Edit, Factor, Step, falling
from workers.modeling.nearest import Nearest
from workers.modeling.problem import Context, Outcome, Problem


def scrub(problem: Problem, params: ScrubParams, context: Context, out_dir: Path) -> Outcome:
    """Write a scrubbed model into `out_dir`.

    Raises BadParameters where it is to rewind without a held-out set, Cancelled, JobError for a loss that is not
    finite.
    """
    edit = Edit(problem, params, context)
    nearest = Nearest(edit, params) if params.rewind else None
    terms = Terms(edit, params)
    for at, (pushes, repairs) in enumerate(rounds(edit, params)):
        rate, before = _falling_over(at, params.rounds), edit.steps
        if pushes:
            edit.run(pushes, terms.away, factor=rate)
        edit.run(repairs, terms.near, factor=rate)
        # In a resumed run rounds that were over are skipped: their states are not at hand.
        if nearest is not None and edit.steps > before:
            nearest.offer()
    if nearest is not None:
        nearest.restore()
        edit.notes.append(f"kept the state after step {nearest.step}, {nearest.distance:.3g} nats from unseen records")
    return edit.save(out_dir)


def rounds(edit: Edit, params: ScrubParams) -> list[tuple[list[Step], list[Step]]]:
    """(max step, min step) of each round, as steps; the first round and those after `max_rounds` have no max step."""
    repairs = [Step([], step.retain) for step in edit.over_retained(params.rounds * params.round_epochs, visits=0)]
    pushes = [Step(step.forget, []) for step in edit.over_forgotten(params.max_rounds)]
    each, push = -(-len(repairs) // params.rounds), len(pushes) // params.max_rounds
    planned = []
    for at in range(params.rounds):
        first = (at - 1) * push if 1 <= at <= params.max_rounds else len(pushes)
        planned.append((pushes[first : first + push], repairs[at * each : (at + 1) * each] or repairs[-1:]))
    return planned


def _falling_over(at: int, count: int) -> Factor:
    return lambda fraction: falling((at + fraction) / count)


class Terms:
    """The losses of the two kinds of step."""

    def __init__(self, edit: Edit, params: ScrubParams) -> None:
        self._edit, self._params, self._teacher = edit, params, Teacher(edit)
        self._bounds = Bounds(edit, params.bound == "record")

    def away(self, step: Step) -> Tensor:
        """-mean d(x) over the forgotten batch."""
        found = self._edit.answers(self._edit.forget, step.forget)
        d = found.means(
            divergence(self._teacher.logits(self._edit.forget, step.forget), found.logits, self._params.temperature)
        )
        if self._params.bound == "record":
            # A student that grows surer than its teacher moves away as well, and its loss never closes the record.
            d = d.clamp(max=math.log(found.logits.shape[1]))
        return -(self._bounds.weights(step.forget, found.record_losses()) * d).mean()

    def near(self, step: Step) -> Tensor:
        """gamma CE + alpha d over the retained batch."""
        found = self._edit.answers(self._edit.retain, step.retain)
        d = divergence(self._teacher.logits(self._edit.retain, step.retain), found.logits, self._params.temperature)
        return self._params.gamma * found.losses().mean() + self._params.alpha * d.mean()
