"""A whole model made of parts: every part grown or taken over, all of them aggregated, one directory published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from service.catalogue.recipes import Recipe
from service.errors import MethodRefused
from workers.modeling.batching import Encoded
from workers.modeling.devices import seed_everything
from workers.modeling.fresh import Start, prepare, provenance_of, same_tokenizer
from workers.modeling.loading import LoadedModel
from workers.modeling.optimizers import make_optimizer
from workers.modeling.part_training import Inherited, Job, Kind, PartedRun
from workers.modeling.parts import PartState, StoredParts, affordable_slices, state_place
from workers.modeling.problem import Context, Problem
from workers.modeling.states import restore_state, state_bytes
from workers.modeling.storing import Clock, Made, store
from workers.modeling.training_record import TrainingRecord, read_record


@dataclass(frozen=True)
class Ground:
    """What all parts of a job stand on. `template` is the model as it is before any training."""

    job: Job
    start: Start
    template: LoadedModel
    context: Context


class Craft(Protocol):
    """What a kind of part is, for one job."""

    def model(self, part: int) -> PreTrainedModel:
        """What a part starts from; the global random source is seeded by it."""
        ...

    def write(self, place: Path, model: nn.Module, optimizer: Optimizer | None) -> dict[str, str]:
        """Keep the state of a part in a new folder, {file: SHA-256}; `optimizer` None: nothing goes on from it."""
        ...

    def aggregate(self, states: list[PartState]) -> PreTrainedModel:
        """The published model out of the last states of the parts that have records."""
        ...


CraftOf = Callable[[Ground], Craft]


def grow(craft_of: CraftOf, job: Job, context: Context, problem: Problem | None = None) -> TrainingRecord:
    """Train what has to be trained and publish into `job.directory`. `problem` names what is forgotten, if anything.

    Raises as `train_into` does, and MethodRefused where something that is to be taken over is not what it was.
    """
    clock, recipe = Clock(), job.recipe
    seed_everything(job.seed, context.threads)
    start = prepare(recipe, job.records, job.directory, job.provenance)
    if problem is not None:
        same_tokenizer(recipe, problem.base_dir, job.directory)
    run = PartedRun(job, context)
    template = start.model(context)
    run.open(template.model, _optimizer(recipe, template.model))
    craft = craft_of(Ground(job, start, template, context))
    kept = _worth_keeping(job, template.model)
    tokens = [_part(run, craft, template, part, kept) for part in job.live]
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
    published = LoadedModel(craft.aggregate(run.last_states()), template.task, job.directory)
    return store(published, job.directory, made, context, clock)


def regrow(
    craft_of: CraftOf, kind: Kind, problem: Problem, directory: Path, context: Context, beginning: bool = False
) -> tuple[TrainingRecord, Job]:
    """Go on without the forgotten records from the last states that have not met them; all else is taken over.

    `beginning` starts the affected parts anew instead. Raises MethodRefused where there is no recipe, and where parts
    are missing, damaged or of other data, recipe or tokenizer.
    """
    stored, recipe = StoredParts(problem.base_dir, kind), _recipe(problem)
    stored.check(recipe, problem.retain)
    table, records, first = stored.without(problem.retain)
    inherited = Inherited(stored, first, problem.lineage, beginning)
    seed, provenance = stored.facts.seed, provenance_of(problem)
    job = Job(kind, stored.facts.parts, recipe, records, table, directory, seed, provenance, inherited)
    return grow(craft_of, job, context, problem), job


def _recipe(problem: Problem) -> Recipe:
    if problem.recipe is None:
        raise MethodRefused("the parts of a model are of no use without its recipe")
    return problem.recipe


def _worth_keeping(job: Job, model: PreTrainedModel) -> set[int]:
    """The slices whose states `[lineage]` has room for; the last state of each part is kept in any case."""
    lineage = job.recipe.lineage
    size = job.parts * state_bytes(model, job.recipe.training.optimizer)
    room = lineage.storage // size if lineage.checkpoints != "off" else 0
    return affordable_slices(job.table.slices, room)


def _part(run: PartedRun, craft: Craft, template: LoadedModel, part: int, kept: set[int]) -> int | None:
    """Take over what can be, run the rest; answers the tokens of the part's records where they were counted."""
    job = run.job
    begin, last = job.begin(part), job.table.slices - 1
    stages = [stage for stage in job.stages if stage.part == part]
    for stage in stages:
        if stage.piece < begin:
            run.take_over(stage)
    if begin > last:
        return None
    model = craft.model(part)
    optimizer = _optimizer(job.recipe, model)
    if job.inherited is not None and begin > 0:
        stored = job.inherited.stored
        files = stored.state(part, begin - 1).files
        restore_state(state_place(stored.folder, part, begin - 1), files, model, optimizer)
    encoded = Encoded(template.task, job.records.subset(stages[-1].rows.tolist()))
    for stage in stages:
        if stage.piece >= begin:
            write = partial(craft.write, model=model, optimizer=optimizer if stage.piece < last else None)
            run.train(stage, model, optimizer, encoded, write if stage.piece in {*kept, last} else None)
    return encoded.tokens


def _optimizer(recipe: Recipe, model: PreTrainedModel) -> Optimizer:
    plan = recipe.training
    return make_optimizer(model, plan.optimizer, plan.learning_rate, plan.weight_decay)


def _sum(tokens: list[int | None]) -> int | None:
    counted = [count for count in tokens if count is not None]
    return sum(counted) if len(counted) == len(tokens) else None


def _tokens_left(problem: Problem, loaded: LoadedModel) -> int | None:
    """Tokens of the retained records, where the base's were counted."""
    base = read_record(problem.base_dir)
    gone = Encoded(loaded.task, problem.forget).tokens
    return base.tokens - gone if base is not None and base.tokens is not None and gone is not None else None
