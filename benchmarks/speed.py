"""Does a method run as fast as its passes allow?

Each approximate method of the catalogue runs at its defaults, and a tape notes its passes: which records, with gradient
or without, where it went backward and took a step. A bare loop of plain torch then plays the tape: the same batches cut
from the same records, the head at answer positions only, one flat cross-entropy, AdamW. Both are timed in CPU seconds
on one thread, in turn, from the first batch until the model is saved. A ratio of 1 is the speed of the bare loop: what
a method does beside its passes, such as divergences, masks and bounds, is what lies below it.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel

from benchmarks.record import Result, Spread, Target
from service.catalogue.methods import METHODS
from service.catalogue.recipes import Recipe
from service.catalogue.specs import Task
from service.errors import LetheError
from workers.demo.conversations import conversation, customers
from workers.demo.digits import digits
from workers.lineage.recorder import TrainingRecorder
from workers.modeling.batching import Encoded
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Problem
from workers.modeling.records import MemoryRecords
from workers.modeling.tasks import Batch
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line

DIGEST = "00" * 32
LIMIT = 0.9
COLUMNS = ("method", "samples", "samples/s", "bare loop", "ratio", "steps")
_IGNORED = -100
_CPU = torch.device("cpu")
_MODELS: dict[Task, dict[str, Any]] = {
    "image-classification": {
        "model_type": "resnet", "num_channels": 1, "embedding_size": 32, "hidden_sizes": [32, 64, 128],
        "depths": [2, 2, 2], "layer_type": "basic",
    },
    "causal-lm": {"model_type": "gpt2", "n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 96},
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is measured: people in the data, how many of them are forgotten, rounds."""

    people: int
    forgotten: int
    rounds: int


FULL, QUICK = Sizes(20, 2, 3), Sizes(8, 1, 1)


@dataclass
class Tape:
    """What a method did: ("pass", part, rows, with gradient), ("backward",) and ("step",), and when it began and ended.

    Times are CPU seconds of the process.
    """

    events: list[tuple[Any, ...]] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """From the first batch to the last save."""
        return self.ended - self.began

    @property
    def samples(self) -> int:
        """Records that went through the model, each pass counted."""
        return sum(len(event[2]) for event in self.events if event[0] == "pass")


@contextmanager
def recording() -> Iterator[Tape]:
    """Note what is done in here. The outermost call of a transformers model is a pass."""
    tape, cut, depth = Tape(), [(None, list[int]())], [0]
    batch, call, backward, save = (
        Encoded.batch, PreTrainedModel.__call__, torch.Tensor.backward, PreTrainedModel.save_pretrained,
    )  # fmt: skip

    def cutting(part: Encoded, rows: list[int], device: torch.device) -> Batch:
        tape.began = tape.began or time.process_time()
        cut[0] = (part, rows)  # type: ignore[assignment]
        return batch(part, rows, device)

    def calling(model: PreTrainedModel, *args: Any, **inputs: Any) -> Any:
        # Two short passes find out how a model's head is computed: they are not of these records.
        if depth[0] == 0 and len(next(iter(inputs.values()))) == len(cut[0][1]):
            tape.events.append(("pass", *cut[0], torch.is_grad_enabled()))
        depth[0] += 1
        try:
            return call(model, *args, **inputs)
        finally:
            depth[0] -= 1

    def going_back(*args: Any, **options: Any) -> None:
        tape.events.append(("backward",))
        backward(*args, **options)  # type: ignore[no-untyped-call]

    def saving(*args: Any, **options: Any) -> None:
        tape.ended = time.process_time()
        save(*args, **options)

    def stepped(*_: Any) -> None:
        tape.events.append(("step",))

    hook = register_optimizer_step_post_hook(stepped)
    try:
        with (
            patch.object(Encoded, "batch", cutting),
            patch.object(PreTrainedModel, "__call__", calling),
            patch.object(torch.Tensor, "backward", going_back),
            patch.object(PreTrainedModel, "save_pretrained", saving),
        ):
            yield tape
    finally:
        hook.remove()


def play(tape: Tape, base: Path, task: Task) -> float:
    """CPU seconds of a bare loop over the tape."""
    model = load_model(base, task, _CPU).model
    # So small a rate that the weights stay where every loss is finite.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-8, weight_decay=0.0, fused=True)
    pending: list[Tensor] = []
    began = time.process_time()
    for event in tape.events:
        if event[0] == "pass":
            _, part, rows, graded = event
            with torch.set_grad_enabled(graded):
                loss = _loss(model, part.batch(rows, _CPU))
            if graded:
                pending.append(loss)
        elif event[0] == "backward" and pending:
            torch.stack(pending).sum().backward()
            pending.clear()
        elif event[0] == "step":
            optimizer.step()
            optimizer.zero_grad()
    return time.process_time() - began


def _loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    if "targets" in batch:
        bearing = batch["targets"][:, 1:] != _IGNORED
        hidden = model.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state[:, :-1][bearing]
        return torch.nn.functional.cross_entropy(
            model.get_output_embeddings()(hidden), batch["targets"][:, 1:][bearing]
        )
    return torch.nn.functional.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"])


def run(quick: bool = False) -> Result:
    """Measure; `quick` does one round on few records."""
    sizes = QUICK if quick else FULL
    result = Result("speed", "Methods, as a fraction of a bare loop over the same passes", sizes.rounds, COLUMNS)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name:
        for task in _MODELS:
            problem = _problem(task, sizes, Path(name) / task)
            _measure(result, task, problem, sizes.rounds, Path(name) / "out")
    result.settings |= {"threads": 1, "people": sizes.people, "forgotten people": sizes.forgotten}
    result.notes += [
        "median (lowest–highest) of the rounds, CPU seconds on one thread; in a round each method and its bare loop in "
        "turn; samples: records that went through the model, each pass counted",
        "above 1: a method that trains fewer weights than the bare loop, or goes backward through less of the model",
    ]
    return result


def _measure(result: Result, task: Task, problem: Problem, rounds: int, out: Path) -> None:
    names = [spec.name for spec in METHODS if spec.kind == "approximate" and task in spec.tasks]
    found: dict[str, list[tuple[Tape, float]]] = {name: [] for name in names}
    refused: dict[str, str] = {}
    for number in range(rounds):
        for name in names:
            if name in refused:
                continue
            try:
                with recording() as tape:
                    run_attempt(name, {}, problem, Context(_CPU), out / f"{name}-{number}-{task}")
            except LetheError as error:
                refused[name] = str(error)
                continue
            found[name].append((tape, play(tape, problem.base_dir, task)))
    result.rows.append(
        [f"[bold]{task}[/bold]: {len(problem.forget)} of {len(problem.retain) + len(problem.forget)}", *[""] * 5]
    )
    for name, runs in found.items():
        if name not in refused and runs[0][0].samples:
            _report(result, task, name, runs)
    result.notes += [f"{task}: {name} was not measured: {reason}" for name, reason in refused.items()]


def _report(result: Result, task: Task, name: str, runs: Sequence[tuple[Tape, float]]) -> None:
    def spread(of: Callable[[Tape, float], float]) -> Spread:
        return Spread.of([of(tape, bare) for tape, bare in runs])

    first = runs[0][0]
    speed, bare = spread(lambda t, _: t.samples / t.seconds), spread(lambda t, b: t.samples / b)
    ratio = spread(lambda t, b: b / t.seconds)
    steps = sum(event[0] == "step" for event in first.events)
    result.rows.append([f"  {name}", f"{first.samples:,}", speed.text(), bare.text(), ratio.text(2), str(steps)])
    result.measurements.append(
        {"task": task, "method": name, "samples": first.samples, "steps": steps}
        | {"samples_per_second": speed, "bare_samples_per_second": bare, "ratio": ratio}
    )
    result.targets.append(Target(f"{name} on {task}", ratio.median, LIMIT, at_most=False))


def _problem(task: Task, sizes: Sizes, base: Path) -> Problem:
    data, held_out = _records(task, sizes.people), _records(task, sizes.people, seed=1)
    model: dict[str, Any] = {"task": task, "config": _MODELS[task]}
    training: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-3}
    if task == "causal-lm":
        model["tokenizer"], training["max_length"] = {"train": 1000}, 96
    recipe = Recipe.model_validate({"model": model, "training": training})
    train_by_recipe(recipe, data, base, 0, Context(_CPU, recorder=TrainingRecorder), Provenance(DIGEST))
    line = open_line(base, task, data, held_out, DIGEST)
    people = list(dict.fromkeys(line.people.subjects.tolist()))[: sizes.forgotten]
    ids = [
        name for name, who in zip(line.people.ids.tolist(), line.people.subjects.tolist(), strict=True) if who in people
    ]
    return build_problem(line, ids, recipe, DIGEST, {}, companions=0)


def _records(task: Task, people: int, seed: int = 0) -> MemoryRecords:
    if task == "causal-lm":
        turns = [(who.subject_id, turn) for who in customers(people, seed) for turn in conversation(who)]
        columns: dict[str, list[Any]] = {"prompt": [t[0] for _, t in turns], "completion": [t[1] for _, t in turns]}
        owners = [owner for owner, _ in turns]
    else:
        found = digits(people, seed=0)[seed]
        columns = {"image": [one.image for one in found], "label": [one.label for one in found]}
        owners = [one.subject_id for one in found]
    return MemoryRecords(task, [f"{seed}-{at}" for at in range(len(owners))], owners, columns)
