"""Random labels: teach the model something else about the forgotten records.

Graves, Nagisetty, Ganesh 2021 (arXiv:2010.10981), the relabelling of their amnesiac unlearning:
    min_theta  mean_{x in R} CE(x, y; theta) + mean_{x in F} CE(x, y'; theta),    y' uniform over the labels but y,
drawn once a record. Public code draws over all labels, so that one in C keeps its own.

Published settings: Adam at 1e-4, 3 epochs. Default here: a record counts only while its loss under its own label lies
below that of unseen records of its rank (`bound`); `bound="none"` is the published form.
Needs labels, and a held-out set for the bound (without one the bound is the loss of guessing). Costs `epochs` passes
over the retained records and at most `visits` over the forgotten ones, forward and backward.
Fails, unbounded, by showing what it hides: forgotten records end far above what unseen ones lose. A record that was
wrongly labelled from the start is given another wrong label, and is hardly easier to tell from unseen ones than before.
"""

from pathlib import Path

from service.catalogue.families.baselines import RandomLabelParams
from workers.modeling.editing import Edit
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.relabelling import Relabelled


def random_label(problem: Problem, params: RandomLabelParams, context: Context, out_dir: Path) -> Outcome:
    """Write a relabelled model into `out_dir`.

    Raises BadParameters for a model of one class, Cancelled, JobError for a loss that is not finite.
    """
    edit = Edit(problem, params, context)
    relabelled = Relabelled(edit, params.bound == "record")
    edit.run(edit.over_retained(params.epochs, params.visits), relabelled.loss)
    return edit.save(out_dir)
