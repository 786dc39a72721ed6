"""A tiny language model that learns 200 canaries by heart: what exposure says of it, of a retrain and of an ascent.

Two hundred canaries, ten times each, beside a hundred other texts. References are 1,024 texts of the same make that no
model saw. The exact figures are those of one seed; what is asserted holds with a wide margin.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from service.verification.exposure import NULL_MEAN, MeanExposure, exposure, mean_exposure, rank_one_limit, ranks
from tests.workers import factories
from tests.workers.memorising import copied, secrets, together, train, untrained
from workers.modeling.loading import LoadedModel
from workers.modeling.records import MemoryRecords
from workers.modeling.rounding import channel_axis, rounded, step_sizes
from workers.scoring.score import score

CANARIES, BACKGROUND = secrets(200, 1), secrets(100, 2, "b")
REFERENCES, SELECTION = secrets(1024, 3, "r"), secrets(1000, 4, "s")
RATE = 5e-3
RELEARN_STEPS, RELEARN_RATE = 20, 3e-3
CAP = 4.5


def losses(loaded: LoadedModel, records: MemoryRecords) -> np.ndarray:
    table = score(loaded, records, factories.context()).table
    return table["nll"].to_numpy() / table["utf8_bytes"].to_numpy()


def rank_of(loaded: LoadedModel, records: MemoryRecords = CANARIES) -> np.ndarray:
    return ranks(losses(loaded, records), losses(loaded, REFERENCES))


def exposed(loaded: LoadedModel, records: MemoryRecords = CANARIES) -> MeanExposure:
    return mean_exposure(exposure(rank_of(loaded, records), len(REFERENCES)), len(REFERENCES))


@pytest.fixture(scope="module")
def original() -> LoadedModel:
    return train(untrained(), together(*[CANARIES] * 10, *[BACKGROUND] * 10), 600, RATE)


@pytest.fixture(scope="module")
def retrained() -> LoadedModel:
    return train(untrained(), together(*[BACKGROUND] * 10), 200, RATE)


@pytest.fixture(scope="module")
def ascended(original: LoadedModel) -> LoadedModel:
    """Gradient ascent on the canaries up to a cap, beside descent on other texts."""

    def climb(found: Tensor) -> Tensor:
        return -0.7 * found.clamp(max=CAP).mean()

    return train(copied(original), CANARIES, 120, 1e-3, climb, batch=80, keep=together(BACKGROUND, SELECTION))


def test_canaries_stand_out_up_to_the_cap_before_and_not_after_an_exact_retrain(
    original: LoadedModel, retrained: LoadedModel
) -> None:
    cap, limit = math.log2(len(REFERENCES)), rank_one_limit(len(CANARIES), len(REFERENCES))
    before, after = exposed(original), exposed(retrained)
    assert before.mean > cap - 1
    assert np.count_nonzero(rank_of(original) == 1) > len(CANARIES) / 2
    low, high = after.interval(0.99)
    assert low <= NULL_MEAN <= high
    assert after.mean == pytest.approx(NULL_MEAN, abs=0.35)
    assert np.count_nonzero(rank_of(retrained) == 1) <= limit


def test_an_ascent_goes_below_the_null_and_what_it_hid_comes_back(
    ascended: LoadedModel, retrained: LoadedModel
) -> None:
    """Twenty steps on one half of the canaries bring the other half back, which a retrained model never saw."""
    assert exposed(ascended).interval(0.95)[1] < NULL_MEAN
    half, other = CANARIES.subset(range(100)), CANARIES.subset(range(100, 200))
    again, control = (
        exposed(train(copied(loaded), half, RELEARN_STEPS, RELEARN_RATE, batch=50), other)
        for loaded in (ascended, retrained)
    )
    assert again.interval(0.95)[0] > NULL_MEAN
    low, high = control.interval(0.99)
    assert low <= NULL_MEAN <= high
    assert again.mean > control.mean + 0.5


def test_rounding_undoes_most_of_a_tiny_update() -> None:
    """Weights anywhere in their bin: an update d changes the rounded value of a share |d| / step of them."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(400, 400, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.029)
    with torch.no_grad():
        moved = torch.nn.Linear(400, 400, bias=False)
        moved.weight.copy_(layer.weight + 1e-3 * torch.sign(torch.randn(400, 400)))
        expected = float((1e-3 / step_sizes(layer.weight, "int4")).mean())
        same = rounded(layer, "int4").weight / step_sizes(layer.weight, "int4")
        # The moved weights on the grid of the old ones: their own largest weight moves the grid by a trifle.
        after = torch.round(moved.weight / step_sizes(layer.weight, "int4"))
    share = float((after != torch.round(same)).float().mean())
    assert expected == pytest.approx(0.0763, abs=0.006)
    assert share == pytest.approx(expected, rel=0.05)


def test_a_small_edit_is_rounded_away_weight_by_weight(original: LoadedModel) -> None:
    """A few steps of ascent: nearly all weights of its four-bit form are those of the original's."""
    edited = train(copied(original), CANARIES, 2, 1e-3, lambda found: -found.mean())
    changed, expected, total = 0.0, 0.0, 0
    with torch.no_grad():
        for name, module in original.model.named_modules():
            axis = channel_axis(module)
            if axis is None or name == "lm_head":
                continue
            before, after = module.weight, edited.model.get_submodule(name).weight
            steps = step_sizes(before, "int4", axis)
            changed += float((torch.round(before / steps) != torch.round(after / steps)).sum())
            expected += float(((after - before).abs() / steps).sum())
            total += before.numel()
    assert 0 < expected / total < 0.02
    assert changed / total == pytest.approx(expected / total, rel=0.15)
