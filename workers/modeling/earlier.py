"""Earlier states of the served model's training, where its lineage kept them."""

from service.errors import BadParameters
from workers.modeling.editing import Edit
from workers.modeling.observing import Checkpoint, History
from workers.modeling.optimizers import make_optimizer
from workers.modeling.problem import Problem


def history_of(problem: Problem) -> History:
    """The lineage. Raises BadParameters without one, and for a model that was trained in parts."""
    if problem.lineage is None or problem.recipe is None:
        raise BadParameters("the method needs the recipe and what the training of the model recorded")
    if problem.recipe.sharding.on or problem.recipe.adapters is not None:
        raise BadParameters("the model was trained in parts and has no state of the whole")
    return problem.lineage


def state_before(problem: Problem, step: int) -> Checkpoint:
    """The newest state with at most `step` steps behind it. Raises BadParameters where none was kept."""
    found = history_of(problem).newest(step)
    if found is None:
        raise BadParameters(f"no state of the training is left from its first {step} steps")
    return found


def last_states(problem: Problem, count: int) -> list[Checkpoint]:
    """Up to so many of the last states before the end of the training, oldest first.

    Raises BadParameters where none was kept.
    """
    history = history_of(problem)
    found: list[Checkpoint] = []
    point = state_before(problem, history.steps - 1)
    while len(found) < count:
        found.append(point)
        older = history.newest(point.step - 1) if point.step > 0 else None
        if older is None:
            break
        point = older
    return found[::-1]


def restore_weights(edit: Edit, point: Checkpoint) -> None:
    """Put the weights and buffers of a state into the edited model. Raises MethodRefused for a damaged file."""
    recipe = edit.problem.recipe
    assert recipe is not None  # noqa: S101  (history_of has looked)
    # A state is restored whole; its optimiser belongs to the training and is let go.
    training = recipe.training
    point.restore(edit.model, make_optimizer(edit.model, training.optimizer, training.learning_rate, 0.0))


def earlier(edit: Edit, point: Checkpoint) -> Edit:
    """The same records under the weights of an earlier state: a second model beside the edited one.

    It counts its own passes, from 0. Raises MethodRefused for a damaged file.
    """
    other = edit.beside()
    restore_weights(other, point)
    return other
