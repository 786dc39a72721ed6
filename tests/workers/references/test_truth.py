"""The whole way on real models: references catch the untouched model and let a true retrain pass, by a matched AUC."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.catalogue.recipes import Recipe
from service.verification.statistics import clustered_auc
from tests.workers import factories
from tests.workers.references.conftest import DATA, HELD_OUT
from workers.demo.digits import Digit, digits
from workers.metrics.reference_auc import Judged, ReferenceAuc, reference_auc
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.records import MemoryRecords
from workers.modeling.train import train_by_recipe
from workers.references.members import Materials
from workers.references.pool import build_pool
from workers.references.tables import SideTable, load_side, membership
from workers.scoring.score import score

TASK = "image-classification"
RECIPE = Recipe.model_validate(
    {
        "model": {
            "task": TASK,
            "config": factories.RESNET | {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1]},
        },
        "training": {"epochs": 16, "batch_size": 32, "learning_rate": 3e-3},
    }
).bare()


def records(of: list[Digit]) -> MemoryRecords:
    columns: dict[str, list[Any]] = {"image": [digit.image for digit in of], "label": [digit.label for digit in of]}
    return MemoryRecords(TASK, [digit.record_id for digit in of], [digit.subject_id for digit in of], columns)


def read(side: SideTable, model: Path, forget: MemoryRecords, held_out: MemoryRecords) -> tuple[ReferenceAuc, float]:
    """(calibrated AUC, population AUC) of a model."""
    loaded = load_model(model, TASK, factories.context().device)

    def judged(part: str, chosen: MemoryRecords) -> Judged:
        table = score(loaded, chosen, factories.context()).table
        labels = np.asarray(table["label"].to_pylist())
        return side.judged(part, chosen.ids, membership(table, TASK), chosen.subjects, labels)

    ours, theirs = judged("train", forget), judged("held_out", held_out)
    found = reference_auc(ours, theirs)
    assert isinstance(found, ReferenceAuc)
    return found, clustered_auc(ours.scores, theirs.scores, ours.subjects, theirs.subjects).auc


@pytest.mark.slow
def test_a_retrain_passes_and_the_untouched_model_is_caught_on_mislabelled_records(tmp_path: Path) -> None:
    train, held_out = digits(110, seed=0)
    data, others = records(train), records(held_out)
    wrong = [at for at, digit in enumerate(train) if digit.mislabelled][:60]
    forget, kept = data.subset(wrong), data.subset([at for at in range(len(train)) if at not in wrong])
    known = Provenance(DATA, HELD_OUT, num_labels=10)
    for name, chosen, seed in (("served", data, 0), ("retrained", kept, 1)):
        train_by_recipe(RECIPE, chosen, tmp_path / name, seed, factories.context(), known)
    materials = Materials(tmp_path / "served", data, others, RECIPE, DATA, HELD_OUT, {})
    pool = build_pool(tmp_path / "pool", materials, factories.context(3), 8)
    side = load_side(pool, "gate")
    untouched, seen_by_all = read(side, tmp_path / "served", forget, others)
    retrained, _ = read(side, tmp_path / "retrained", forget, others)
    assert untouched.auc.interval(0.95)[0] > 0.8
    low, high = retrained.auc.interval(0.99)
    assert low < 0.5 < high
    assert retrained.auc.auc == pytest.approx(0.5, abs=0.15)
    # A population attack finds nothing: the memorised records look like never-seen ones, or safer.
    assert seen_by_all < 0.6
    # What the members disagree about is what can only be known by heart.
    memorized = side.memorization(data.ids)
    right = np.setdiff1d(np.arange(len(train)), [at for at, digit in enumerate(train) if digit.mislabelled])
    assert memorized[wrong].mean() > memorized[right].mean() + 0.3
