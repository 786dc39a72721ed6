"""SISA: sharded, isolated, sliced, aggregated training (Bourtoule et al. 2021, arXiv 1912.03817).

Each shard is a model of its own with its own initial weights; it is grown over its slices, and its state is kept after
each. The shards answer with the mean of their logits. A forgotten record has met one shard from its own slice on, so
that going on from the state before, without it, gives what a training without it would have given.

Published is one model where the architecture allows it (workers/modeling/wide_resnet.py), else a folder for each shard.
"""

import copy
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from service.catalogue.recipes import Recipe
from workers.modeling.devices import seed_everything
from workers.modeling.ensembles import Ensemble, member_name
from workers.modeling.fresh import Provenance
from workers.modeling.part_training import Job, part_seed
from workers.modeling.parted_models import Ground, grow, regrow
from workers.modeling.parts import PartState, PartTable, divide, state_place
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records
from workers.modeling.states import WEIGHTS, model_state, read_tensors, write_state
from workers.modeling.training_record import TrainingRecord
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
    job = Job("shards", sharding.shards, recipe, data, table.blank(), directory, seed, provenance)
    return grow(Shards, job, context)


def retrain_shards(
    problem: Problem, directory: Path, context: Context, beginning: bool = False
) -> tuple[TrainingRecord, Job]:
    """`workers.modeling.parted_models.regrow` for shards."""
    return regrow(Shards, "shards", problem, directory, context, beginning)


class Shards:
    """Implements `workers.modeling.parted_models.Craft`: a part is a whole model."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def model(self, part: int) -> PreTrainedModel:
        """Initial weights of the shard's own."""
        ground = self._ground
        seed_everything(part_seed(ground.job.seed, part), ground.context.threads)
        return ground.start.model(ground.context).model

    def write(self, place: Path, model: nn.Module, optimizer: Optimizer | None) -> dict[str, str]:
        """Weights, buffers, optimiser."""
        return write_state(place, model, optimizer)

    def aggregate(self, states: list[PartState]) -> PreTrainedModel:
        """One model whose logits are the mean of the shards', or the shards side by side; a single shard is itself."""
        folder, template = self._ground.job.folder, self._ground.template.model
        weights = {one.part: _weights(folder, one) for one in states}
        if len(weights) == 1:
            return _filled(template, next(iter(weights.values())))
        reason = obstacle(template, len(weights))
        if reason is None:
            return merge_resnets(template, list(weights.values()))
        members = {member_name(part): _filled(template, state) for part, state in weights.items()}
        # It answers to all that is asked of a model here.
        return cast(PreTrainedModel, Ensemble(members, reason))


def _weights(folder: Path, state: PartState) -> dict[str, Tensor]:
    return read_tensors(state_place(folder, state.part, state.slice) / WEIGHTS, state.files[WEIGHTS])


def _filled(model: PreTrainedModel, state: dict[str, Tensor]) -> PreTrainedModel:
    filled = copy.deepcopy(model)
    own = model_state(filled)
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    return filled
