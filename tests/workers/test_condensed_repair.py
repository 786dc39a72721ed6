"""Condensed repair: representatives against k-means by hand, weights in the loss, bounded erasing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.founding import CondensedRepairParams
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.condensed_repair import condensed_repair
from workers.modeling.condensing import representatives


def test_representatives_are_the_records_nearest_to_their_clusters() -> None:
    """Three far blobs in one group, one blob in another: medoids and sizes are known."""
    draw = np.random.default_rng(0)
    centres = np.array([[0, 0], [50, 0], [0, 50], [100, 100]])
    sizes = [10, 20, 30, 12]
    blobs = [centre + draw.normal(0, 1, (size, 2)) for centre, size in zip(centres, sizes, strict=True)]
    inputs = np.concatenate(blobs).astype(np.float32)
    groups = np.repeat([0, 1], [60, 12])
    rows, weights = representatives(inputs, groups, 3 / 60, 0)
    assert weights.sum() == 72
    assert sorted(weights.tolist()) == [10, 12, 20, 30]
    starts = np.cumsum([0, *sizes])
    for blob, start in zip(blobs, starts, strict=False):
        nearest = int(np.square(blob - blob.mean(axis=0)).sum(axis=1).argmin()) + start
        assert nearest in rows.tolist()
    assert (np.diff(rows) > 0).all()


def test_all_records_stand_for_themselves_and_equal_ones_for_each_other() -> None:
    inputs = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    rows, weights = representatives(inputs, np.zeros(9, dtype=np.int64), 1.0, 0)
    assert rows.tolist() == list(range(9))
    assert weights.tolist() == [1.0] * 9
    rows, weights = representatives(np.ones((10, 2), dtype=np.float32), np.zeros(10, dtype=np.int64), 0.5, 0)
    assert weights.sum() == 10
    assert len(rows) < 5


def test_a_step_weighs_what_stands_for_many(digits_line: Line, tmp_path: Path) -> None:
    """One step of SGD in plain torch on the same representatives."""
    from service.catalogue.parameters import EditParams
    from workers.modeling.classes import class_labels
    from workers.modeling.editing import Edit
    from workers.modeling.heads import all_record_inputs
    from workers.modeling.loading import load_model

    problem = digits_line.problem(20)
    settings = {"optimizer": "sgd", "learning_rate": 1e-3, "forget_batch": 20, "retain_batch": 5000}
    params = CondensedRepairParams(passes=1, repair_epochs=0, bound="none", alpha=0.6, **settings)  # type: ignore[arg-type]
    condensed_repair(problem, params, factories.context(), tmp_path)
    edit = Edit(problem, EditParams(), factories.context())
    inputs = all_record_inputs(edit, edit.retain).numpy()
    rows, sizes = representatives(inputs, class_labels(edit.retain), 0.1, 0)
    kept = edit.losses(edit.retain, rows.tolist()) @ torch.tensor(sizes / sizes.sum(), dtype=torch.float32)
    loss = 0.6 * kept - 0.4 * edit.losses(edit.forget, list(range(20))).mean()
    gradients = torch.autograd.grad(loss, list(edit.model.parameters()))
    made = load_model(tmp_path, "image-classification", torch.device("cpu")).model
    for got, before, gradient in zip(made.parameters(), edit.model.parameters(), gradients, strict=True):
        assert torch.allclose(got, before - 1e-3 * gradient, atol=1e-5)


@pytest.mark.parametrize("forget", [10, 270])
def test_it_stays_bounded(digits_line: Line, tmp_path: Path, forget: int) -> None:
    problem = digits_line.problem(forget)
    before = measure(digits_line, digits_line.base, problem)
    outcome = condensed_repair(problem, CondensedRepairParams(), factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert after.forget > before.forget
    assert after.forget < after.unseen + 1.0
    assert after.unseen < 2.0 * before.unseen
    assert after.retain < before.retain + 1.0
    assert any("stand for all of them" in note for note in outcome.notes)


def test_texts_have_representatives_too(chat_line: Line, tmp_path: Path) -> None:
    problem = chat_line.problem(30)
    before = measure(chat_line, chat_line.base, problem)
    condensed_repair(problem, CondensedRepairParams(share=0.5, passes=3), factories.context(), tmp_path)
    after = measure(chat_line, tmp_path, problem)
    assert after.forget > before.forget
    assert after.unseen < 1.4 * before.unseen


def test_unseen_records_are_left_nearly_alone(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(60)
    null = dataclasses.replace(problem, forget=digits_line.certification.subset(range(60)))
    before = measure(digits_line, digits_line.base, null)
    condensed_repair(null, CondensedRepairParams(passes=3, repair_epochs=1), factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, null)
    assert after.forget < before.forget + 1.0
