"""Replay: repeat the logged training without the forgotten records, from before the first of them was met.

Source: the deterministic replay of arXiv 2508.12220. The run goes on from the newest checkpoint that no forgotten
record has touched, along the logged order; their ids are left out of their micro-batches and the schedule goes by step
number. An empty micro-batch adds no gradient; an empty step changes neither weights nor optimiser state.

Exact: the result is, byte for byte, that of a run from the initial weights under the same rule, and no forgotten
record is in any of its batches. Not the run that the recipe would draw anew (`retrain`): its order is the old one.
Needs the lineage of the model. Costs the steps after the first exposure, so it saves little where a forgotten record
is met early in the first epoch. Refused, never run as an approximation, where log, checkpoints, data, recipe, device
or a tokenizer made from the data are not what the log was made with.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from service.catalogue.families.exact import ReplayParams
from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import MethodRefused
from workers.modeling.batching import Encoded
from workers.modeling.devices import seed_everything
from workers.modeling.fresh import fresh_model, provenance_of, same_tokenizer
from workers.modeling.observing import History
from workers.modeling.optimizers import make_optimizer
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.records import Records
from workers.modeling.storing import Clock, Made, store
from workers.modeling.training import Fitted, Loop, described
from workers.modeling.training_record import read_record


def replay(problem: Problem, params: ReplayParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model directory of the repeated run. Raises MethodRefused with the reason where it cannot be exact."""
    recipe, history = _conditions(problem, context)
    clock = Clock()
    first = history.first_exposure(problem.retain)
    point = history.newest(first) if params.start == "newest" else None
    begin = point.step if point is not None else 0
    seed_everything(history.seed, context.threads)
    provenance = provenance_of(problem)
    loaded = fresh_model(recipe, problem.retain, out_dir, provenance, context)
    same_tokenizer(recipe, problem.base_dir, out_dir)
    encoded = Encoded(loaded.task, problem.retain)
    plan = recipe.training
    optimizer = make_optimizer(loaded.model, plan.optimizer, plan.learning_rate, plan.weight_decay)
    recorder = context.recorder(out_dir / LINEAGE) if context.recorder is not None else None
    run = described(loaded.model, encoded, recipe, history.seed, context, optimizer, history.steps)
    loop = Loop(loaded.model, encoded, plan, optimizer, context, recorder)
    try:
        if recorder is not None:
            recorder.begin(run)
            recorder.inherit(begin)
        if point is not None:
            point.restore(loaded.model, optimizer)
        fitted = _repeat(loop, history, problem.retain, begin)
        lineage = recorder.finish() if recorder is not None else None
    except BaseException:
        if recorder is not None:
            recorder.abandon()
        raise
    made = Made(recipe, problem.retain, encoded.tokens, history.seed, provenance, fitted, lineage)
    store(loaded, out_dir, replace(made, whole_seconds=_whole_seconds(problem.base_dir)), context, clock)
    return _outcome(fitted, first, begin, history.steps)


def _repeat(loop: Loop, history: History, retain: Records, begin: int) -> Fitted:
    """Run the logged steps from `begin` on; exposures count those before it too."""
    for batch in history.batches(retain, 0):
        if batch.step < begin:
            loop.exposures[batch.rows] += 1
    return loop.through(history.batches(retain, begin), begin, history.steps)


def _whole_seconds(base_dir: Path) -> float | None:
    """What a whole training of the line takes: later plans compare their cost with it, not with this repetition's."""
    base = read_record(base_dir)
    return base.seconds if base is not None else None


def _conditions(problem: Problem, context: Context) -> tuple[Recipe, History]:
    recipe, history = problem.recipe, problem.lineage
    if recipe is None or history is None:
        raise MethodRefused("replay needs the recipe and the order log of the model, and one of them is not there")
    if recipe.sharding.on or recipe.adapters is not None:
        raise MethodRefused("the model was trained in parts: use the method that retrains one of them")
    history.check(recipe, problem.retain, context)
    return recipe, history


def _outcome(fitted: Fitted, first: int, begin: int, total: int) -> Outcome:
    share = (total - begin) / max(1, total)
    notes = [
        f"the first forgotten record was met in step {first} of {total}; repeated from step {begin}, "
        f"{share:.0%} of the training"
    ]
    if not np.isfinite(fitted.loss) and fitted.steps:
        notes.append("every batch after the checkpoint was empty")
    return Outcome(fitted.steps, fitted.passes, fitted.passes, fitted.curve, exact=True, notes=notes)
