"""First-epoch ascent: its move by hand, what it stores, its scores, and how far it goes."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.founding import FirstEpochAscentParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.factories import MemoryRecords
from tests.workers.logged_lines import logged, logged_digits, with_history
from workers.lineage.store import ModelHistory
from workers.methods.first_epoch_ascent import first_epoch_ascent
from workers.modeling.curvature import Hessian, gradient_sum
from workers.modeling.earlier import earlier, state_before
from workers.modeling.editing import Edit
from workers.modeling.influence_scores import activation_scores, hessian_scores
from workers.modeling.layers import parameters_of, size_in_bytes
from workers.modeling.loading import load_model
from workers.modeling.problem import Problem


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A small GPT-2 with tied embedding; each fifth record of the training nearly repeats another."""
    data, held_out = factories.conversations(40, 40)
    completions = list(data.columns["completion"])
    completions[195:200] = [f"{text} Thanks" for text in completions[0:5]]
    prompts = list(data.columns["prompt"])
    prompts[195:200] = prompts[0:5]
    data = MemoryRecords(data.task, data.ids, data.subjects, {"prompt": prompts, "completion": completions})
    recipe = factories.gpt2_recipe(epochs=12, batch_size=16, learning_rate=3e-3)
    return logged(tmp_path_factory.mktemp("first"), recipe, data, held_out)


def epoch_one(problem: Problem) -> int:
    history = problem.lineage
    assert isinstance(history, ModelHistory)
    return history.facts.epoch_steps


@pytest.mark.parametrize("epoch", [1, 12])
def test_a_free_move_is_a_step_along_the_early_gradient(chats: Line, tmp_path: Path, epoch: int) -> None:
    """In plain torch: the record's gradient at the end of the epoch asked for, at the length asked for."""
    problem = with_history(chats, 1)
    params = FirstEpochAscentParams(bound="none", score="none", length=0.02, epoch=epoch)
    first_epoch_ascent(problem, params, factories.context(), tmp_path)
    edit = Edit(problem, EditParams(), factories.context())
    point = state_before(problem, epoch * epoch_one(problem))
    assert point.step == epoch * epoch_one(problem)
    then = earlier(edit, point)
    batch = then.forget.batch([0], torch.device("cpu"))
    logits = then.model(input_ids=batch["input_ids"]).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, batch["targets"][0, 1:])
    tables = [then.model.transformer.wte.weight, then.model.transformer.wpe.weight]
    gradients = torch.autograd.grad(loss, tables)
    served = [edit.model.transformer.wte.weight, edit.model.transformer.wpe.weight]
    norms = [torch.cat([value.detach().reshape(-1) for value in values]).norm() for values in (gradients, served)]
    made = load_model(tmp_path, "causal-lm", torch.device("cpu")).model
    for name, gradient, before in zip(("wte", "wpe"), gradients, served, strict=True):
        expected = before.detach() + 0.02 * norms[1] * gradient / norms[0]
        assert torch.allclose(getattr(made.transformer, name).weight, expected, atol=1e-5)
    assert torch.equal(made.transformer.h[0].mlp.c_fc.weight, edit.model.transformer.h[0].mlp.c_fc.weight)


def test_the_embedding_takes_at_most_half_of_what_all_layers_take(chats: Line, tmp_path: Path) -> None:
    problem = with_history(chats, 2)
    edit = Edit(problem, EditParams(), factories.context())
    sizes = {}
    for group in ("embedding", "all"):
        gradient = gradient_sum(edit, edit.forget, parameters_of(edit.model, group), [0])  # type: ignore[arg-type]
        sizes[group] = gradient.nbytes
        assert gradient.nbytes == size_in_bytes(parameters_of(edit.model, group))  # type: ignore[arg-type]
    assert sizes["embedding"] <= sizes["all"] / 2
    outcome = first_epoch_ascent(problem, FirstEpochAscentParams(), factories.context(), tmp_path)
    assert f"one takes {sizes['embedding']} bytes, of all layers {sizes['all']}" in outcome.notes[0]


def test_scores_are_what_dense_algebra_says(tmp_path: Path) -> None:
    line = logged_digits(tmp_path)
    problem = with_history(line, 12)
    edit = Edit(
        dataclasses.replace(problem, retain=problem.retain.subset(range(12))), EditParams(), factories.context()
    )
    then = earlier(edit, state_before(problem, epoch_one(problem)))
    # Scales and shifts alone: few enough for a dense matrix.
    groups = tuple([p for p in parameters_of(one.model, "embedding") if p.ndim == 1] for one in (edit, then))
    hessian = Hessian(edit, edit.retain, groups[0], 5.0, 256)
    width = sum(p.numel() for p in groups[0])
    dense = torch.stack([hessian.product(row) for row in torch.eye(width)])
    mean = gradient_sum(edit, edit.forget, groups[0]) / 12
    own = torch.stack([gradient_sum(then, then.forget, groups[1], [row]) for row in range(12)])
    expected = (own @ torch.linalg.solve(dense, mean)).numpy()
    got = hessian_scores(edit, then, groups, 5.0)
    assert np.corrcoef(expected, got)[0, 1] > 0.98
    same = copy.copy(edit)
    assert (activation_scores(edit, same) > 0).all()
    assert not np.allclose(activation_scores(edit, same), activation_scores(edit, then))


@pytest.mark.parametrize(("forget", "score"), [(10, "hessian"), (60, "activation")])
def test_records_rise_no_further_than_unseen_ones(chats: Line, tmp_path: Path, forget: int, score: str) -> None:
    problem = with_history(chats, forget)
    problem = dataclasses.replace(problem, retain=problem.retain.subset(range(60)))
    before = measure(chats, chats.base, problem)
    params = FirstEpochAscentParams(score=score, layers="all")  # type: ignore[arg-type]
    first_epoch_ascent(problem, params, factories.context(), tmp_path)
    after = measure(chats, tmp_path, problem)
    assert after.forget > before.forget + 0.03
    assert after.forget < after.unseen + 0.1
    assert after.unseen < 1.06 * before.unseen
    assert after.retain < before.retain + 0.3 * (before.unseen - before.retain)


def test_without_a_bound_it_runs_away(chats: Line, tmp_path: Path) -> None:
    """The published failure: plain ascent of a few records leaves nothing of the model."""
    problem = with_history(chats, 10)
    before = measure(chats, chats.base, problem)
    params = FirstEpochAscentParams(bound="none", length=0.2, layers="all")
    first_epoch_ascent(problem, params, factories.context(), tmp_path)
    assert measure(chats, tmp_path, problem).retain > before.retain + 1.0


def test_fuzzy_moves_near_matches_along(chats: Line, tmp_path: Path) -> None:
    problem = with_history(chats, 5)
    assert problem.lineage is not None
    assert problem.lineage.near_matches(problem.forget.ids.tolist(), 0.8)
    copies = dataclasses.replace(problem, forget=chats.train.subset(range(195, 200)))
    before = measure(chats, chats.base, copies)
    params = FirstEpochAscentParams(mode="fuzzy", layers="all")
    outcome = first_epoch_ascent(problem, params, factories.context(), tmp_path)
    assert any("nearly repeat forgotten ones" in note for note in outcome.notes)
    assert measure(chats, tmp_path, copies).forget > before.forget
    assert problem.lineage.near_matches(["c00020-0"], 1.0) == set()


def test_an_untied_head_is_not_touched_by_the_embedding(tmp_path: Path) -> None:
    data, held_out = factories.conversations(10, 10)
    recipe = factories.gpt2_recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    config = dict(recipe.model.config or {}) | {"tie_word_embeddings": False}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"config": config})})
    line = logged(tmp_path, recipe, data, held_out)
    (tmp_path / "out").mkdir()
    params = FirstEpochAscentParams(bound="none", length=0.01)
    first_epoch_ascent(with_history(line, 2), params, factories.context(), tmp_path / "out")
    models = [load_model(place, "causal-lm", torch.device("cpu")).model for place in (line.base, tmp_path / "out")]
    assert torch.equal(models[0].lm_head.weight, models[1].lm_head.weight)
    assert not torch.equal(models[0].transformer.wte.weight, models[1].transformer.wte.weight)


def test_without_a_state_of_the_first_epoch_it_is_refused(chat_line: Line, tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match="what the training of the model recorded"):
        first_epoch_ascent(chat_line.problem(5), FirstEpochAscentParams(), factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []
