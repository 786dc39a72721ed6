"""Rewind-to-Delete: go back to a state of the training, and descend from there on the retained records alone.

Mu and Klabjan (R2D), arXiv:2409.09778: theta_{T-K} from a checkpoint, K gradient steps on R, then Gaussian noise. The
paper certifies (epsilon, delta) for smooth, non-convex losses under full gradient steps, a bound on gradients and a
noise that both prescribe. None of it is claimed here: the steps are the training's mini-batches, and the noise is 0
unless it is asked for. Published settings depend on the certificate's constants; K is a share of the training here.

The state is the newest that the lineage kept from the first `fraction` of the training; the passes over the retained
records default to what the training then had left. Nothing pushes anybody away, so it cannot run away.
Needs lineage and recipe. Costs the share of the training that is done again, so it is worth it only where the state
lies late; an early one, from before the records were met, makes it nearly a retrain. Fails on what was learnt by heart
before that state and is not overwritten: the notes say how far it went back.
"""

from pathlib import Path

import torch

from service.catalogue.families.founding import RewindParams
from workers.modeling.devices import generator
from workers.modeling.earlier import history_of, restore_weights, state_before
from workers.modeling.editing import Edit
from workers.modeling.problem import Context, Outcome, Problem

_NOISE = 34


def rewind(problem: Problem, params: RewindParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model into `out_dir`.

    Raises BadParameters where no state is left from so early in the training, MethodRefused for a damaged one,
    Cancelled, JobError for a loss that is not finite.
    """
    history, recipe = history_of(problem), problem.recipe
    assert recipe is not None  # noqa: S101  (history_of has looked)
    point = state_before(problem, int(params.fraction * history.steps))
    edit = Edit(problem, params, context)
    restore_weights(edit, point)
    left = (1 - point.step / history.steps) * recipe.training.epochs
    epochs = params.epochs if params.epochs is not None else left
    edit.notes.append(f"went back to step {point.step} of {history.steps}, then {epochs:.3g} passes")
    edit.run(edit.over_retained(epochs, visits=0), lambda step: edit.objective(edit.retain, step.retain))
    if params.noise > 0:
        _add_noise(edit, params.noise)
    return edit.save(out_dir)


def _add_noise(edit: Edit, scale: float) -> None:
    draw = generator(edit.context.seed, _NOISE)
    with torch.no_grad():
        for parameter in edit.model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=draw).to(parameter))
