"""Condensed repair: a small weighted set stands for the retained records, in the erasing steps and in the repair.

Unlearning by dataset condensation, arXiv:2402.00195 (read from its abstract): the retained set is condensed, so that
every repair on it is cheaper by the share that is left. The paper makes new images; here real records stand in, the
medoids of k-means clusters of what the head is given, class by class, each with the weight of its cluster
(workers/modeling/condensing.py), which also fits texts and leaves no made data behind.
    erase    alpha CE_w(condensed) - (1 - alpha) mean_{F, open} CE,  `passes` visits of each forgotten record
    repair   CE_w(condensed), `repair_epochs` passes over the condensed set
A forgotten record adds nothing once it loses what the unseen one of its rank does (`bound`). Published settings: the
condensed set a tenth and less of the data, tuned for each data set.
Needs retained records. Costs a forward pass over them all, the clustering, and two passes a step. Fails where few
records cannot stand for many: what only the others knew fades, noisy labels above all, so that a share of 1 (ordinary
repair) is worth comparing.
"""

from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.families.founding import CondensedRepairParams
from workers.modeling.batching import Encoded
from workers.modeling.classes import class_labels
from workers.modeling.condensing import representatives
from workers.modeling.editing import Bounds, Edit, Step
from workers.modeling.heads import all_record_inputs
from workers.modeling.problem import Context, Outcome, Problem


def condensed_repair(problem: Problem, params: CondensedRepairParams, context: Context, out_dir: Path) -> Outcome:
    """Write the repaired model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    bounds = Bounds(edit, params.bound == "record")
    weights = _condense(edit, params.share)

    def kept(rows: list[int]) -> Tensor:
        shares = weights[rows].to(context.device)
        return edit.losses(edit.retain, rows) @ shares / shares.sum()

    def erase(step: Step) -> Tensor:
        losses = edit.losses(edit.forget, step.forget)
        pushed = (losses * bounds.weights(step.forget, losses)).mean()
        return params.alpha * kept(step.retain) - (1 - params.alpha) * pushed

    edit.run(edit.over_forgotten(params.passes), erase, finished=bounds.reached)
    if params.repair_epochs:
        edit.run(
            edit.over_retained(params.repair_epochs, visits=0), lambda step: kept(step.retain), message="repairing"
        )
    return edit.save(out_dir)


def _condense(edit: Edit, share: float) -> Tensor:
    """Put the condensed set in the place of the retained records; the weights of its records [K], of mean 1."""
    inputs = all_record_inputs(edit, edit.retain).numpy()
    rows, sizes = representatives(inputs, class_labels(edit.retain), share, edit.context.seed)
    total = len(edit.retain)
    edit.retain = Encoded(edit.task, edit.retain.records.subset(rows.tolist()))
    edit.notes.append(f"{len(rows)} of {total} retained records stand for all of them")
    return torch.as_tensor(sizes / sizes.mean(), dtype=torch.float32)
