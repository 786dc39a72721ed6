"""Retraining: the exact method, and the reference for every other.

Train by the recipe on the retained records, from fresh weights or the recipe's base; a tokenizer that was trained on
the data is trained again. Exact: the model's distribution is that of a model which never saw the forgotten records.
Needs a recipe. Costs one training (less the share of the forgotten records). A fresh draw: it need not equal the
original in any other respect.
"""

from pathlib import Path

from service.catalogue.families.exact import RetrainParams
from service.errors import BadParameters
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.train import train_again


def retrain(problem: Problem, params: RetrainParams, context: Context, out_dir: Path) -> Outcome:
    """Write a model directory trained on `problem.retain` alone. Raises BadParameters without a recipe."""
    del params
    if problem.recipe is None:
        raise BadParameters("retrain needs the recipe of the model: give --recipe or register the model with one")
    return train_again(problem, problem.recipe, context, out_dir)
