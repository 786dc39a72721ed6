"""Changed forgotten records: how they are changed, and what they show of retrains and of doing nothing."""

import io

import numpy as np
import pytest
from PIL import Image

from service.verification.statistics import NotMeasurable
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from tests.workers.robustness.conftest import World
from workers.planning.shift_checks import PERTURBED, SHIFTED, Shifts
from workers.robustness.perturbed import REACH, augmented, generated


def pixels(records: MemoryRecords) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(value))) for value in records.columns["image"]]).astype(float)


def test_augmented_images_are_near_and_repeat_themselves(world: World) -> None:
    loaded, records = world.load(world.original), world.forget.subset(range(40))
    once, again = augmented(loaded, records, 0), augmented(loaded, records, 0)
    assert once.columns == again.columns
    assert augmented(loaded, records, 1).columns["image"] != once.columns["image"]
    assert once.columns["label"] == records.columns["label"]
    assert once.ids.tolist() == records.ids.tolist()
    apart = np.abs(pixels(once) - pixels(records)).mean(axis=(1, 2)) / 255
    strange = np.abs(pixels(once)[1:] - pixels(records)[:-1]).mean(axis=(1, 2)) / 255
    assert (apart > 0).all()
    assert apart.mean() < strange.mean()


def test_texts_lose_a_tenth_of_the_words_of_their_prompts() -> None:
    prompt = "one two three four five six seven eight nine ten"
    records = MemoryRecords(
        "causal-lm", ["a"] * 200, ["a"] * 200, {"prompt": [prompt] * 200, "completion": ["x"] * 200}
    )
    found = augmented(None, records, 0)  # type: ignore[arg-type]
    lengths = [len(text.split()) for text in found.columns["prompt"]]
    assert np.mean(lengths) == pytest.approx(9.0, abs=0.3)
    assert all(set(text.split()) <= set(prompt.split()) for text in found.columns["prompt"])
    assert found.columns["completion"] == records.columns["completion"]
    single = MemoryRecords("text-classification", ["a"] * 50, ["a"] * 50, {"text": ["word"] * 50, "label": [0] * 50})
    assert augmented(None, single, 0).columns["text"] == ["word"] * 50  # type: ignore[arg-type]


def test_generated_images_stay_within_reach_and_use_it(world: World) -> None:
    loaded, records = world.load(world.original), world.forget
    before = [parameter.detach().clone() for parameter in loaded.model.parameters()]
    made = generated(loaded, records, factories.context())
    assert isinstance(made, MemoryRecords)
    apart = np.abs(pixels(made) - pixels(records)) / 255
    assert apart.max() <= REACH + 1 / 255
    assert apart.mean() > 0.3 * REACH
    # The model that it was trained beside still answers most of them as before, and is as it was.
    shifts = Shifts(records, per_byte=False)
    shifts.at("original", loaded, factories.context())
    assert all(bool((a == b).all()) for a, b in zip(before, loaded.model.parameters(), strict=True))


def test_a_retrain_loses_them_and_doing_nothing_does_not(world: World) -> None:
    shifts = Shifts(world.forget, per_byte=False)
    for name, directory in (
        ("original", world.original),
        ("candidate", world.retrained[0]),
        ("retrained-1", world.retrained[1]),
    ):
        assert shifts.at(name, world.load(directory), factories.context()) > 0
    checks, metrics = shifts.told()
    assert [check.id for check in checks] == [PERTURBED, SHIFTED]
    for check in checks:
        assert check.estimate is not None
        assert check.ci95 is not None
        # Wrong labels that were learnt by heart are lost with the records.
        assert check.ci95[0] > 0.0
        assert metrics[f"{check.id}_retrained"][0] == pytest.approx(check.estimate, abs=0.15)
    same = Shifts(world.forget, per_byte=False)
    for name in ("original", "candidate"):
        same.at(name, world.load(world.original), factories.context())
    assert [check.estimate for check in same.told()[0]] == [0.0, 0.0]


def test_a_generator_for_texts_is_not_there(world: World) -> None:
    loaded = world.load(world.original)
    loaded.task = object()  # type: ignore[assignment]
    found = generated(loaded, world.forget, factories.context())
    assert isinstance(found, NotMeasurable)
