"""One attempt: check that the method fits, run it, and leave a complete candidate directory or nothing."""

import contextlib
import resource
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel
from safetensors import safe_open

from service.catalogue.methods import find_method
from service.catalogue.specs import MethodSpec
from service.errors import BadParameters, JobError
from workers.lineage.recorder import carry_over
from workers.modeling.code_version import code_version, package_versions
from workers.modeling.directories import building, directory_digest
from workers.modeling.loading import load_task, weight_files
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.recipe import recipe_digest
from workers.modeling.training_record import (
    TrainingRecord,
    Unlearning,
    forget_digest,
    read_exposures,
    read_record,
    weights_digest,
    write_exposures,
    write_record,
)
from workers.planning.parameters import parse_params
from workers.planning.problems import recording


@dataclass(frozen=True)
class AttemptResult:
    """What an attempt did and cost. `digest` identifies the directory `out`; passes are counted in batches.

    `peak_memory_bytes` is resident memory on the CPU, interpreter included, and allocated memory on a GPU.
    """

    method: str
    params: dict[str, Any]
    seed: int
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    forward_passes: int
    backward_passes: int
    steps: int
    records: int
    out: str
    digest: str
    curve: list[dict[str, float]]
    notes: list[str]
    exact: bool
    code_version: str


def run_attempt(
    method: str, params: dict[str, Any], problem: Problem, context: Context, out_dir: Path
) -> AttemptResult:
    """Run a method of the catalogue into `out_dir`, which appears whole or not at all.

    Raises BadParameters when the method is unknown, does not fit the problem or gets parameters it does not take;
    JobError when loss or weights are not finite; Cancelled.
    """
    spec = find_method(method)
    chosen = parse_params(spec, params)
    _check_needs(spec, problem)
    target = _resolve(spec)
    _forget_peak(context.device)
    started, started_cpu = time.monotonic(), time.process_time()
    with building(out_dir) as directory:
        outcome: Outcome = target(problem, chosen, recording(problem, context), directory)
        _check_finite(directory)
        if outcome.exact:
            _name_method(spec, chosen, problem, directory)
        else:
            _record_unlearning(spec, chosen, problem, context, outcome, directory, time.monotonic() - started)
    return AttemptResult(
        method=method,
        params=chosen.model_dump(mode="json"),
        seed=context.seed,
        seconds=round(time.monotonic() - started, 3),
        cpu_seconds=round(time.process_time() - started_cpu, 3),
        peak_memory_bytes=_peak(context.device),
        forward_passes=outcome.forward_passes,
        backward_passes=outcome.backward_passes,
        steps=outcome.steps,
        records=len(problem.people),
        out=str(out_dir),
        digest=directory_digest(out_dir),
        curve=outcome.curve,
        notes=outcome.notes,
        exact=outcome.exact,
        code_version=code_version(),
    )


def _check_needs(spec: MethodSpec, problem: Problem) -> None:
    if not len(problem.forget) or not len(problem.retain):
        raise BadParameters("the forget set must hold at least one record and leave at least one")
    if problem.task_name not in spec.tasks:
        raise BadParameters(f"{spec.name} does not fit {problem.task_name}; it fits {', '.join(spec.tasks)}")
    if problem.replacements is not None and not spec.corrects:
        raise BadParameters(f"{spec.name} deletes records and cannot correct them: leave the replacements out")
    missing = {
        "recipe": problem.recipe is None and "the recipe of the model",
        "held_out": (problem.selection is None or not len(problem.selection)) and "a held-out set",
        "lineage": problem.lineage is None and "what the training of the model recorded, and nothing is left of it",
        "references": problem.references is None and "reference models: a pool of 16 at least, by --references",
        "oracle": problem.oracle is None and "a model retrained without the records, which only an experiment has",
    }
    for need in spec.needs:
        if missing.get(need):
            raise BadParameters(f"{spec.name} needs {missing[need]}")


def _forget_peak(device: torch.device) -> None:
    """Start the peak anew, so that an attempt does not answer for an earlier one of the same process (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resolve(spec: MethodSpec) -> Any:
    module, _, function = spec.target.partition(":")
    return getattr(import_module(module), function)


def _check_finite(directory: Path) -> None:
    for path in weight_files(directory):
        with safe_open(str(path), framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open has no iterator of its own
                tensor = weights.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise JobError(f"the weights of {name} are not finite; lower the learning rate")


def _name_method(spec: MethodSpec, params: BaseModel, problem: Problem, directory: Path) -> None:
    """Which method made an exact candidate from which version; `retrain` is the recipe itself, without a parent."""
    record = read_record(directory)
    if record is None:
        raise JobError(f"{spec.name} left no training record")
    if spec.name != "retrain":
        record.parent = directory_digest(problem.base_dir)
        record.unlearning = _unlearning(spec, params, problem)
        write_record(directory, record)


def _unlearning(spec: MethodSpec, params: BaseModel, problem: Problem) -> Unlearning:
    return Unlearning(
        method=spec.name,
        params=params.model_dump(mode="json"),
        forget_digest=forget_digest(problem.people.ids),
        forget_records=len(problem.people),
        companions=len(problem.companions),
    )


def _record_unlearning(
    spec: MethodSpec,
    params: BaseModel,
    problem: Problem,
    context: Context,
    outcome: Outcome,
    directory: Path,
    seconds: float,
) -> None:
    """The candidate's training record: what it descends from, and which records it is meant to hold."""
    base = read_record(problem.base_dir)
    digest = _write_kept(problem, base, directory)
    record = TrainingRecord(
        task=problem.task_name,
        recipe=problem.recipe,
        recipe_digest=recipe_digest(problem.recipe) if problem.recipe else None,
        data_digest=problem.data_digest,
        holdout_digest=problem.holdout_digest,
        columns=problem.columns,
        records=len(problem.retain),
        subjects=len(np.unique(problem.retain.subjects)),
        excluded=len(problem.people) + (base.excluded if base else 0),
        seed=context.seed,
        device=str(context.device),
        threads=context.threads,
        precision="fp32",
        code_version=code_version(),
        packages=package_versions(),
        weights_digest=weights_digest(weight_files(directory)),
        steps=outcome.steps,
        # What a whole training of this line takes: later jobs compare their cost with it.
        seconds=base.seconds if base else round(seconds, 3),
        cost={"forward_passes": outcome.forward_passes, "backward_passes": outcome.backward_passes},
        exposures_digest=digest,
        parent=directory_digest(problem.base_dir),
        unlearning=_unlearning(spec, params, problem),
        tokens=_tokens_left(problem, base),
        edits=(base.edits if base else 0) + 1,
        edited_records=(base.edited_records if base else 0) + len(problem.people),
        lineage=carry_over(problem.base_dir, directory, problem.retain, problem.reserved, problem.companions),
    )
    write_record(directory, record)


def _tokens_left(problem: Problem, base: TrainingRecord | None) -> int | None:
    """Tokens of the retained records, where the base's were counted."""
    if base is None or base.tokens is None:
        return None
    task = load_task(problem.base_dir, problem.task_name)
    lengths = task.encode(problem.forget.take(range(len(problem.forget)))).lengths
    return base.tokens - sum(lengths) if lengths is not None else None


def _write_kept(problem: Problem, base: TrainingRecord | None, directory: Path) -> str:
    """The base's exposures without the forgotten records; without a base record, the retained ids alone."""
    if base is None:
        return write_exposures(directory, problem.retain.ids, None)
    table = read_exposures(problem.base_dir)
    kept = table.filter(
        pc.invert(pc.is_in(table["record_id"], value_set=pa.array(problem.forget.ids.tolist(), pa.string())))
    )
    counts = kept["exposures"]
    values = None if counts.null_count else counts.to_numpy()
    return write_exposures(directory, np.array(kept["record_id"].to_pylist(), dtype=str), values)
