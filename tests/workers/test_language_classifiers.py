"""Methods made for language models that take classifiers too: noisy digits, at random and mislabelled."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.language import LANGUAGE
from tests.workers.conftest import Line, measure
from tests.workers.test_language_methods import unlearnt
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.loading import load_model

NAMES = [spec.name for spec in LANGUAGE if "image-classification" in spec.tasks]


@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_digits_come_to_look_unseen(name: str, digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(200)
    before = measure(digits_line, digits_line.base, problem)
    _, after = unlearnt(name, digits_line, problem, tmp_path / "out")
    assert before.auc > 0.57
    assert abs(after.auc - 0.5) < 0.7 * (before.auc - 0.5)
    assert after.unseen < 1.25 * before.unseen
    assert after.retain < 1.5 * before.retain


@pytest.mark.parametrize("name", NAMES)
def test_ten_hard_digits_stay_bounded(name: str, digits_line: Line, tmp_path: Path) -> None:
    """The ten that the served model loses most on, nearly all of them mislabelled: they lie far out already."""
    loaded = load_model(digits_line.base, "image-classification", torch.device("cpu"))
    losses, _ = record_losses(loaded.model, Encoded(loaded.task, digits_line.train), loaded.device, 256)
    order = np.argsort(-losses, kind="stable").tolist()
    forget, retain = (digits_line.train.subset(sorted(rows)) for rows in (order[:10], order[10:]))
    problem = dataclasses.replace(digits_line.problem(10), forget=forget, retain=retain)
    before = measure(digits_line, digits_line.base, problem)
    outcome, after = unlearnt(name, digits_line, problem, tmp_path / "out")
    assert outcome.steps <= 10
    assert before.forget > 2 * before.unseen
    assert after.forget < 2 * before.forget
    assert after.unseen < 1.3 * before.unseen
    assert after.retain < 1.6 * before.retain
