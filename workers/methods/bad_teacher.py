"""Bad teacher: what an untrained network would say of forgotten records, what the served model says of the rest.

Chundawat, Tarun, Mandal, Kankanhalli 2023 (arXiv:2205.08096), section 4:
    min_theta  mean_{x in F} KL(p_bad(x) || p_theta(x)) + mean_{x in R'} KL(p_0(x) || p_theta(x)),
with p_bad from initial weights drawn anew and p_0 the served model. For language models both are means over tokens,
a record's own first. The paper minimises over the union of F and a 30 % sample R' of the retained records; here each
step takes a batch of each.

Published settings: Adam at 1e-4, 1 epoch, temperature 1; SFRon's authors used SGD at 0.02 and 10 epochs. Default
here: a record counts only while its loss lies below that of unseen records of its rank (`bound`), and steps at which
none does are repair; `bound="none"` is the published form. It ends by itself at the loss of guessing, log C.
Needs no labels of its own; for the bound a held-out set. Costs `passes` over the forgotten records and as many retained
batches: forward twice (teachers' answers on forgotten records are kept), backward once.
Fails, unbounded, by forgetting too much: an untrained network knows less of a record than any model that has learnt
from others, so that forgotten records stand out. Language models: guessing among thousands of tokens is very far away.
"""

from pathlib import Path

from torch import Tensor

from service.catalogue.families.baselines import BadTeacherParams
from workers.modeling.distillation import Teacher, divergence, untrained
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.problem import Context, Outcome, Problem


def bad_teacher(problem: Problem, params: BadTeacherParams, context: Context, out_dir: Path) -> Outcome:
    """Write a distilled model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    good, bad = Teacher(edit), Teacher(edit, untrained(edit))
    bounds = Bounds(edit, params.bound == "record")

    def loss(step: Step) -> Tensor:
        asked = edit.answers(edit.forget, step.forget)
        away = asked.means(divergence(bad.logits(edit.forget, step.forget), asked.logits, params.temperature))
        kept = edit.answers(edit.retain, step.retain)
        near = kept.means(divergence(good.logits(edit.retain, step.retain), kept.logits, params.temperature))
        return (bounds.weights(step.forget, asked.record_losses()) * away).mean() + near.mean()

    # All steps are taken: where every record is done, they repair what the last push did to the rest.
    edit.run(edit.over_forgotten(params.passes), loss)
    return edit.save(out_dir)
