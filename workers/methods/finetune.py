"""Fine-tuning: go on training on the retained records and trust that the others fade.

Warnecke et al. 2023 (arXiv:2108.11577) and Golatkar et al. 2020 (arXiv:1911.04933) use it as the first baseline:
    min_theta  mean_{x in R} CE(x; theta),  from the served weights on.

Published settings for classifiers: SGD at 0.01 (0.1 in RUM's middle stratum), 5 to 10 of 30 to 200 epochs. Here the
length is counted in passes over the retained records and the rate comes from the recipe.
Needs retained records alone. Costs `epochs` / epochs of the training. Fails on memorised records: nothing pushes them,
and what the network knows by heart it goes on knowing.
"""

from pathlib import Path

from service.catalogue.families.baselines import FinetuneParams
from workers.modeling.editing import Edit
from workers.modeling.problem import Context, Outcome, Problem


def finetune(problem: Problem, params: FinetuneParams, context: Context, out_dir: Path) -> Outcome:
    """Write a fine-tuned model into `out_dir`. Raises Cancelled, JobError for a loss that is not finite."""
    edit = Edit(problem, params, context)
    steps = edit.over_retained(params.epochs, visits=0)
    edit.run(steps, lambda step: edit.objective(edit.retain, step.retain))
    return edit.save(out_dir)
