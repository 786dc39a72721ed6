"""Refit: fine-tune the recipe's public base again, on the retained records alone.

Exact with regard to the fine-tuning: its data, seed and order are those of a model that never saw the forgotten
records. What the base itself learnt, elsewhere and from others, stays; whoever registers a base answers for it. Needs
a recipe with `model.base`. Costs one fine-tuning (less the share of the forgotten records).
"""

from pathlib import Path

from service.catalogue.families.exact import RefitParams
from service.errors import MethodRefused
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.train import train_again


def refit(problem: Problem, params: RefitParams, context: Context, out_dir: Path) -> Outcome:
    """Write a model directory fine-tuned on `problem.retain`. Raises MethodRefused where the recipe names no base."""
    del params
    if problem.recipe is None or problem.recipe.model.base is None:
        raise MethodRefused("refit needs a recipe with model.base; use retrain for a model trained from fresh weights")
    return train_again(problem, problem.recipe, context, out_dir)
