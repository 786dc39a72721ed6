"""Relevance perturbation: forget whole classes by disturbing the units that carry them, without training data.

Zero-shot class unlearning through layer-wise relevance analysis, arXiv:2410.23693 (read from its abstract): relevance
is taken on records that were not trained on, here those of the selection half of the held-out set, and the most
relevant path is perturbed. The reading here: a unit's score is its relevance for the class to forget less its relevance
for the others (gradient times activation, workers/modeling/relevance.py), each relative to the layer's total. Of all
units in front of the head, from the highest score on, the incoming weights are replaced by noise of their own size,
unit by unit, until unseen records of the class are answered no better than by guessing or `tries` units were tried. A
unit whose noise does not raise the loss of the class, or with which unseen records of other classes would in all lose
more than 2 points of accuracy, is put back: nothing runs away.

Whole classes only: a request that leaves people's records of a class behind is refused, since relevance of a class says
nothing about single people. Needs unseen records of that class and of others; no retained and no forgotten record is
trained on. Costs two passes over the unseen sample a unit. Fails where classes share their units (small networks): it
then ends early with the class half known. That a class is not answered any more does not mean that its records have
left the weights. Canaries deleted along are of all classes: those of others stay known, which an evaluation will show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from service.catalogue.families.founding import RelevancePerturbationParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from workers.modeling.batching import Encoded
from workers.modeling.classes import class_labels
from workers.modeling.devices import generator
from workers.modeling.editing import Edit
from workers.modeling.layers import head_of
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.records import chunks
from workers.modeling.relevance import incoming, layers_of, unit_relevance

_NOISE, _BATCH = 36, 256
_HARM = 0.02


@dataclass(frozen=True)
class _Unseen:
    """Rows of the selection: of the classes to forget, and of the others."""

    part: Encoded
    gone: list[int]
    others: list[int]


def relevance_perturbation(
    problem: Problem, params: RelevancePerturbationParams, context: Context, out_dir: Path
) -> Outcome:
    """Write the perturbed model into `out_dir`.

    Raises BadParameters where the request is not all of a class or the held-out set does not show the class and others.
    """
    edit = Edit(problem, EditParams(), context)
    unseen = _unseen(edit, _whole_classes(edit), params.records)
    layers = layers_of(edit.model)
    ranked = _ranked(edit, unseen, layers)[: params.tries]
    draw, meter = generator(context.seed, _NOISE), Meter(context, len(ranked), "unlearning")
    guessed, before = 1 / head_of(edit.model).out_features, _told(edit, unseen.part, unseen.others)[0]
    known, lost = _told(edit, unseen.part, unseen.gone)
    for done, (layer, unit) in enumerate(ranked):
        if known <= guessed:
            break
        put_back = _perturb(layers[layer], unit, params.noise, draw)
        after = _told(edit, unseen.part, unseen.gone)
        if after[1] <= lost or _told(edit, unseen.part, unseen.others)[0] < before - _HARM:
            put_back()
        else:
            known, lost = after
            edit.steps += 1
        meter.step(done + 1)
    others = _told(edit, unseen.part, unseen.others)[0]
    edit.notes.append(
        f"{edit.steps} units were perturbed; unseen records right: {known:.2f} of the class, {others:.2f} of others "
        f"({before:.2f} before)"
    )
    return edit.save(out_dir)


def _whole_classes(edit: Edit) -> set[int]:
    gone, kept = (
        # Canaries are of all classes, and nobody asked for theirs.
        class_labels(part)[edit.problem.of_people(part.records)]
        for part in (edit.forget, edit.retain)
    )
    both = set(gone.tolist()) & set(kept.tolist())
    if both:
        raise BadParameters(
            f"{int(np.isin(kept, sorted(both)).sum())} records of the classes to forget would stay: the method takes "
            "whole classes only"
        )
    return set(gone.tolist())


def _unseen(edit: Edit, classes: set[int], limit: int) -> _Unseen:
    part = edit.selection
    assert part is not None  # noqa: S101  (the catalogue's needs)
    inside = np.isin(class_labels(part), sorted(classes))
    gone, others = np.flatnonzero(inside)[:limit].tolist(), np.flatnonzero(~inside)[:limit].tolist()
    if not gone or not others:
        raise BadParameters("the held-out set shows the method no record of the class, or none of another")
    return _Unseen(part, gone, others)


def _ranked(edit: Edit, unseen: _Unseen, layers: list[nn.Module]) -> list[tuple[int, int]]:
    """(layer, unit) of all units by falling score."""
    own, others = (unit_relevance(edit, unseen.part, rows, layers) for rows in (unseen.gone, unseen.others))
    scores = [_shares(a) - _shares(b) for a, b in zip(own, others, strict=True)]
    places = [(at, unit) for at, score in enumerate(scores) for unit in range(len(score))]
    return [places[at] for at in torch.argsort(torch.cat(scores), descending=True, stable=True).tolist()]


def _shares(relevance: Tensor) -> Tensor:
    return relevance / relevance.abs().sum().clamp_min(1e-12)


def _perturb(layer: nn.Module, unit: int, noise: float, draw: torch.Generator) -> Callable[[], None]:
    """Replace what feeds a unit by noise of its own size; answers what puts it back."""
    weights = incoming(layer, unit).detach()
    kept = weights.clone()
    size = float(kept.square().mean().sqrt())
    weights.copy_(noise * size * torch.randn(weights.shape, generator=draw).to(weights))

    def put_back() -> None:
        weights.copy_(kept)

    return put_back


@torch.no_grad()
def _told(edit: Edit, part: Encoded, rows: list[int]) -> tuple[float, float]:
    """(share that is right, mean loss) of these records."""
    right, lost = 0.0, 0.0
    for piece in chunks(len(rows), _BATCH):
        found = edit.answers(part, [rows[at] for at in piece])
        right += float((found.logits.argmax(dim=1) == found.targets).sum())
        lost += float(found.losses().sum())
    return right / len(rows), lost / len(rows)
