"""RUM: refine the forget set by difficulty, then unlearn each part with the method that suits it.

Zhao, Kurmanji, Barbulescu, E. and P. Triantafillou 2024, arXiv:2406.01257. The forget set is cut into thirds by
memorization (Feldman 2020), or by a proxy that the training left (mean confidence; 2410.16516), or by entanglement; the
thirds are unlearnt one after the other, least memorised first, each from what the one before left, and no third is ever
among the retained records of another. The paper's own pairing: nothing, fine-tuning, SalUn; here by default a repair
pass (a model retrained without little-memorised records answers them as before, but something must be done and shown),
then bounded ascent, then reference matching where there are references, else nabla-tau.

The paper splits 3 x 1,000 records. Entanglement it defines for sets: here a record counts as entangled the nearer its
embedding lies to the centre of the retained ones, which is our reading. Below `fewest` records there is one part, the
last. Needs what its parts need. Costs the sum of its parts. Fails where the proxy has the wrong sign: that would swap
first and last, so the order is tested on mislabelled records.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.catalogue.families.baselines import FinetuneParams
from service.catalogue.families.references import RumParams
from service.catalogue.methods import find_method
from service.errors import BadParameters, Unevaluable
from workers.modeling.editing import Edit
from workers.modeling.heads import all_record_inputs
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.progress import part_of

Array = NDArray[np.float64]

REPAIR = "repair"
_REPAIR_EPOCHS = 0.5
_NAMES = ("low", "middle", "high")


def rum(problem: Problem, params: RumParams, context: Context, out_dir: Path) -> Outcome:
    """Write an unlearned model into `out_dir`.

    Raises BadParameters where what refines the set is not there, or a part's method does not fit; else as the methods.
    """
    parts = _parts(problem, params, context)
    done: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="rum-", dir=out_dir.parent) as folder:
        base = problem.base_dir
        for at, (name, method, rows) in enumerate(parts):
            last = at + 1 == len(parts)
            place = out_dir if last else Path(folder) / name
            place.mkdir(exist_ok=True)
            posed = replace(problem, base_dir=base, forget=problem.forget.subset(rows.tolist()))
            share = part_of(context, at / len(parts), (at + 1) / len(parts), name)
            scratch = context.scratch / name if context.scratch is not None else None
            done.append(_run(method, posed, replace(share, scratch=scratch), place))
            base = place
    told = ", ".join(f"{len(rows)} {name} by {method}" for name, method, rows in parts)
    return _together(done, f"by {params.refine_by}: {told}")


def _parts(problem: Problem, params: RumParams, context: Context) -> list[tuple[str, str, NDArray[np.int64]]]:
    """(name, method, rows of the forget set) of each stratum, least memorised first."""
    methods = (params.low, params.middle, _high(problem, params))
    for method in methods:
        _check(problem, method)
    # Canaries deleted along say nothing of how hard people's records are: they make no strata.
    if len(problem.people) < params.fewest:
        return [(_NAMES[-1], methods[-1], np.arange(len(problem.forget)))]
    order = np.argsort(difficulty(problem, params, context), kind="stable")
    cut = np.array_split(order, len(methods))
    return [(name, method, np.sort(rows)) for name, method, rows in zip(_NAMES, methods, cut, strict=True)]


def _high(problem: Problem, params: RumParams) -> str:
    if params.high == "nabla_tau_ref" and problem.references is None:
        return "nabla_tau"
    return params.high


def _check(problem: Problem, method: str) -> None:
    if method == REPAIR:
        return
    spec = find_method(method)
    if spec.name == "rum" or spec.kind == "exact":
        raise BadParameters(f"rum cannot use {method} for a part: name an approximate method other than itself")
    if problem.task_name not in spec.tasks:
        raise BadParameters(f"rum: {method} does not fit {problem.task_name}")
    if "references" in spec.needs and problem.references is None:
        raise BadParameters(f"rum: {method} needs reference models, 16 at least")


def difficulty(problem: Problem, params: RumParams, context: Context) -> Array:
    """Larger = harder to forget [N]. Raises BadParameters where what it is read from is not there."""
    by: dict[str, Callable[[], Array]] = {
        "memorization": lambda: _memorization(problem),
        "confidence": lambda: _unsure(problem),
        "entanglement": lambda: _entangled(problem, context),
    }
    found = by[params.refine_by]()
    if not np.isfinite(found).any():
        raise BadParameters(f"rum: nothing is known of the {params.refine_by} of these records")
    # What is not known lies in the middle.
    return np.where(np.isfinite(found), found, np.nanmedian(found))


def _memorization(problem: Problem) -> Array:
    """Accuracy of references with a record less that of those without it; by the training's confidence without any.

    NaN for canaries, which are in no pool.
    """
    if problem.references is None:
        return _unsure(problem)
    mine = problem.of_people(problem.forget)
    try:
        rows = problem.references.rows("train", problem.people.ids)
    except Unevaluable as error:
        raise BadParameters(f"rum: the reference pool was made for other records: {error.detail}") from error
    found = np.full(len(mine), np.nan)
    found[mine] = problem.references.column("in_correct")[rows] - problem.references.column("out_correct")[rows]
    return found


def _unsure(problem: Problem) -> Array:
    """Minus the mean confidence of the training: what it learnt late it learnt by heart."""
    if problem.lineage is None:
        raise BadParameters("rum needs reference models, or what the training recorded, to tell records apart")
    return -problem.lineage.confidence(problem.forget.ids.tolist())


def _entangled(problem: Problem, context: Context) -> Array:
    """Minus the distance of a record's embedding from the centre of the retained ones."""
    edit = Edit(problem, FinetuneParams(), context)
    inside, kept = (all_record_inputs(edit, part).numpy() for part in (edit.forget, edit.retain))
    return np.asarray(-np.linalg.norm(inside - kept.mean(axis=0), axis=1), dtype=np.float64)


def _run(method: str, problem: Problem, context: Context, out_dir: Path) -> Outcome:
    spec = find_method("finetune" if method == REPAIR else method)
    module, _, function = spec.target.partition(":")
    params = spec.params(epochs=_REPAIR_EPOCHS) if method == REPAIR else spec.params()
    outcome: Outcome = getattr(import_module(module), function)(problem, params, context, out_dir)
    return outcome


def _together(done: list[Outcome], told: str) -> Outcome:
    curve, before = [], 0
    for outcome in done:
        curve += [point | {"step": point["step"] + before} for point in outcome.curve]
        before += outcome.steps
    return Outcome(
        steps=before,
        forward_passes=sum(outcome.forward_passes for outcome in done),
        backward_passes=sum(outcome.backward_passes for outcome in done),
        curve=curve,
        exact=False,
        notes=[told, *(note for outcome in done for note in outcome.notes)],
    )
