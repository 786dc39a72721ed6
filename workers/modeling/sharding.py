"""SISA: sharded, isolated, sliced, aggregated training (Bourtoule et al. 2021, arXiv 1912.03817).

Each shard is a model of its own with its own initial weights; it is grown over its slices, and its state is kept after
each. The shards answer with the mean of their logits. A forgotten record has met one shard from its own slice on, so
that going on from the state before, without it, gives what a training without it would have given.

Published is one model where the architecture allows it (workers/modeling/wide_resnet.py), else a folder for each shard.
"""

import copy
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from service.catalogue.recipes import Recipe
from workers.modeling.batching import Encoded
from workers.modeling.devices import seed_everything
from workers.modeling.ensembles import Ensemble, member_name
from workers.modeling.fresh import Provenance, Start, prepare, provenance_of, same_tokenizer
from workers.modeling.loading import LoadedModel
from workers.modeling.optimizers import make_optimizer
from workers.modeling.part_training import Inherited, Job, PartedRun, part_seed
from workers.modeling.parts import PartTable, StoredParts, affordable_slices, divide, state_place
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records
from workers.modeling.states import WEIGHTS, model_state, read_tensors, restore_state, state_bytes, write_state
from workers.modeling.storing import Clock, Made, store
from workers.modeling.training_record import TrainingRecord, read_record
from workers.modeling.wide_resnet import merge_resnets, obstacle


def train_shards(
    recipe: Recipe,
    data: Records,
    directory: Path,
    seed: int,
    context: Context,
    provenance: Provenance,
    table: PartTable | None = None,
) -> TrainingRecord:
    """Train all shards into an empty directory; errors as for `train_into`, BadDataset for more shards than subjects.

    `table` is who belongs where, one row for each record of `data`; None draws it.
    """
    sharding = recipe.sharding
    if table is None:
        table = divide(data, sharding.shards, sharding.slices, seed)
    return _grow(Job("shards", sharding.shards, recipe, data, table.blank(), directory, seed, provenance), context)


def retrain_shards(
    problem: Problem, recipe: Recipe, directory: Path, context: Context, beginning: bool = False
) -> tuple[TrainingRecord, Inherited]:
    """Go on without the forgotten records from the last states that have not met them; all else is taken over.

    `beginning` starts the affected shards anew instead. Raises MethodRefused where parts are missing, damaged or of
    other data, recipe or tokenizer.
    """
    stored = StoredParts(problem.base_dir, "shards")
    stored.check(recipe, problem.retain)
    table, records, first = stored.without(problem.retain)
    inherited = Inherited(stored, first, problem.lineage, beginning)
    seed, provenance = stored.facts.seed, provenance_of(problem)
    job = Job("shards", stored.facts.parts, recipe, records, table, directory, seed, provenance, inherited)
    return _grow(job, context, problem), inherited


def _grow(job: Job, context: Context, problem: Problem | None = None) -> TrainingRecord:
    clock, recipe = Clock(), job.recipe
    seed_everything(job.seed, context.threads)
    start = prepare(recipe, job.records, job.directory, job.provenance)
    if problem is not None:
        same_tokenizer(recipe, problem.base_dir, job.directory)
    run = PartedRun(job, context)
    template = start.model(context)
    run.open(template.model, _optimizer(recipe, template))
    kept = _worth_keeping(job, template)
    tokens = [_shard(run, start, part, kept, context) for part in job.live]
    fitted, lineage, digest = run.finish()
    made = Made(
        recipe=recipe,
        records=job.records,
        tokens=_sum(tokens) if problem is None else _tokens_left(problem, template),
        seed=job.seed,
        provenance=job.provenance,
        fitted=fitted,
        lineage=lineage,
        parts=digest,
        whole_seconds=run.whole_seconds,
    )
    published = LoadedModel(_aggregate(run, template), template.task, job.directory)
    return store(published, job.directory, made, context, clock)


def _worth_keeping(job: Job, template: LoadedModel) -> set[int]:
    """The slices whose states `[lineage]` has room for; the last weights of each shard are kept in any case."""
    lineage = job.recipe.lineage
    size = job.parts * state_bytes(template.model, job.recipe.training.optimizer)
    room = lineage.storage // size if lineage.checkpoints != "off" else 0
    return affordable_slices(job.table.slices, room)


def _shard(run: PartedRun, start: Start, part: int, kept: set[int], context: Context) -> int | None:
    """Take over what can be, run the rest; answers the tokens of the shard's records where they were counted."""
    job = run.job
    begin, last = job.begin(part), job.table.slices - 1
    stages = [stage for stage in job.stages if stage.part == part]
    for stage in stages:
        if stage.piece < begin:
            run.take_over(stage)
    if begin > last:
        return None
    seed_everything(part_seed(job.seed, part), context.threads)
    loaded = start.model(context)
    optimizer = _optimizer(job.recipe, loaded)
    if job.inherited is not None and begin > 0:
        stored = job.inherited.stored
        files = stored.state(part, begin - 1).files
        restore_state(state_place(stored.folder, part, begin - 1), files, loaded.model, optimizer)
    encoded = Encoded(loaded.task, job.records.subset(stages[-1].rows.tolist()))
    for stage in stages:
        if stage.piece >= begin:
            # Nothing goes on from the last state, so it needs no optimiser.
            write = partial(write_state, model=loaded.model, optimizer=optimizer if stage.piece < last else None)
            run.train(stage, loaded.model, optimizer, encoded, write if stage.piece in {*kept, last} else None)
    return encoded.tokens


def _optimizer(recipe: Recipe, loaded: LoadedModel) -> Optimizer:
    plan = recipe.training
    return make_optimizer(loaded.model, plan.optimizer, plan.learning_rate, plan.weight_decay)


def _aggregate(run: PartedRun, template: LoadedModel) -> PreTrainedModel:
    """One model out of the shards' last states; for a single shard, that one."""
    states: dict[int, dict[str, Tensor]] = {}
    for state in run.last_states():
        path = state_place(run.job.folder, state.part, state.slice) / WEIGHTS
        states[state.part] = read_tensors(path, state.files[WEIGHTS])
    reason = obstacle(template.model, len(states)) if len(states) > 1 else None
    if reason is None and len(states) > 1:
        return merge_resnets(template.model, list(states.values()))
    members = {member_name(part): _filled(template.model, state) for part, state in states.items()}
    # An ensemble answers to all that is asked of a model here.
    return cast(PreTrainedModel, Ensemble(members, reason)) if reason is not None else next(iter(members.values()))


def _filled(model: PreTrainedModel, state: dict[str, Tensor]) -> PreTrainedModel:
    filled = copy.deepcopy(model)
    own = model_state(filled)
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    return filled


def _sum(tokens: list[int | None]) -> int | None:
    counted = [count for count in tokens if count is not None]
    return sum(counted) if len(counted) == len(tokens) else None


def _tokens_left(problem: Problem, loaded: LoadedModel) -> int | None:
    """Tokens of the retained records, where the base's were counted."""
    base = read_record(problem.base_dir)
    gone = Encoded(loaded.task, problem.forget).tokens
    return base.tokens - gone if base is not None and base.tokens is not None and gone is not None else None
