"""What two versions give away: ridge regression in closed form, a head on digits, and a small network."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from workers.robustness.reconstruction import (
    cosine,
    curvature,
    downdate,
    match_gradient,
    recovered_direction,
    ridge,
)

PENALTY = 1.0


def correlated(draw: np.random.Generator, count: int, mixing: np.ndarray) -> np.ndarray:
    return draw.normal(size=(count, len(mixing))) @ mixing


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(trained [500, 20], public [2000, 20], targets [500, 1]) of one kind, with features of unlike spread."""
    draw = np.random.default_rng(0)
    mixing = np.linalg.qr(draw.normal(size=(20, 20)))[0] * np.geomspace(0.3, 3, 20)[:, None]
    trained, public = correlated(draw, 500, mixing), correlated(draw, 2000, mixing)
    targets = trained @ draw.normal(size=(20, 1)) + draw.normal(size=(500, 1))
    return trained, public, targets


def test_a_rank_one_downdate_is_the_retrain_without_the_record(
    world: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    trained, _, targets = world
    whole = ridge(trained, targets, PENALTY)
    inverse = np.linalg.inv(curvature(trained, PENALTY))
    for row in range(20):
        kept = np.arange(len(trained)) != row
        again = ridge(trained[kept], targets[kept], PENALTY)
        assert np.abs(downdate(whole, inverse, trained[row], targets[row]) - again).max() < 1e-12
        assert np.abs(whole - again).max() > 1e-6


def test_a_record_with_leverage_one_cannot_be_taken_out() -> None:
    record = np.array([1.0, 0.0])
    with pytest.raises(ValueError, match="leverage"):
        downdate(np.zeros((2, 1)), np.eye(2), record, np.ones(1))


def cosines(world: tuple[np.ndarray, np.ndarray, np.ndarray], matrix: np.ndarray | None) -> np.ndarray:
    """Of 100 deleted records, one at a time; `matrix` None: the exact one, of the records that stay."""
    trained, _, targets = world
    whole = ridge(trained, targets, PENALTY)
    found = []
    for row in range(100):
        kept = np.arange(len(trained)) != row
        again = ridge(trained[kept], targets[kept], PENALTY)
        used = curvature(trained[kept], PENALTY) if matrix is None else matrix
        found.append(cosine(recovered_direction(whole, again, used).vector, trained[row]))
    return np.array(found)


def test_the_exact_covariance_returns_the_direction_a_public_one_nearly_and_none_does_not(
    world: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    trained, public, _ = world
    assert cosines(world, None).min() >= 0.999
    estimated = cosines(world, curvature(public, PENALTY, len(trained)))
    assert estimated.mean() >= 0.95
    assert estimated.min() > 0.85
    without = cosines(world, np.eye(20))
    assert without.mean() < 0.5
    assert without.max() < estimated.min()


def test_versions_that_differ_by_another_record_say_nothing_of_this_one(
    world: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Null case: |cos| with records that stayed is that of two unrelated records of the same kind."""
    trained, _, targets = world
    whole = ridge(trained, targets, PENALTY)
    again = ridge(trained[1:], targets[1:], PENALTY)
    vector = recovered_direction(whole, again, curvature(trained[1:], PENALTY)).vector
    others = np.array([cosine(vector, record) for record in trained[1:]])
    alike = np.array([cosine(trained[0], record) for record in trained[1:]])
    assert cosine(vector, trained[0]) > 0.999
    assert others == pytest.approx(alike, abs=1e-6)
    assert others.mean() < 0.4
    with pytest.raises(ValueError, match="the same"):
        recovered_direction(whole, whole, curvature(trained, PENALTY))


def test_of_a_head_on_features_the_deleted_image_and_its_class_are_named() -> None:
    """A linear head on random features of digits: the recovered direction is nearest to the deleted image's own."""
    images, labels = load_digits(return_X_y=True)
    draw = np.random.default_rng(1)
    features = np.tanh((images - 8) / 8 @ draw.normal(size=(64, 20)) / 8)
    trained, public = features[:600], features[600:]
    targets = np.eye(10)[labels[:600]]
    old, estimate = ridge(trained, targets, PENALTY), curvature(public, PENALTY, 600)
    named, classes = [], []
    for row in range(40):
        new = ridge(np.delete(trained, row, axis=0), np.delete(targets, row, axis=0), PENALTY)
        found = recovered_direction(old, new, estimate)
        nearest = max(range(600), key=lambda other: cosine(found.vector, trained[other]))
        named.append(nearest == row)
        classes.append(found.label == labels[row])
    assert np.mean(named) > 0.85  # chance is 1 in 600
    assert np.mean(classes) > 0.85


@pytest.fixture(scope="module")
def network() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A small smooth network trained on digits, and the digits."""
    images, labels = load_digits(return_X_y=True)
    inputs, classes = torch.tensor((images - 8) / 8), torch.tensor(labels)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(128, 10),
    ).double()  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for start in range(0, 900, 60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[start : start + 60]), classes[start : start + 60]).backward()
        optimizer.step()
    return model, inputs, classes


def gradient_of(model: nn.Sequential, inputs: torch.Tensor, classes: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(nn.functional.cross_entropy(model(inputs), classes), list(model.parameters())))


def test_one_step_away_from_a_record_gives_its_image_away(
    network: tuple[nn.Sequential, torch.Tensor, torch.Tensor],
) -> None:
    """The version without the record is one ascent step from the old one: its difference is the gradient."""
    model, inputs, classes = network
    for row in range(1000, 1003):
        step = [0.01 * part for part in gradient_of(model, inputs[row : row + 1], classes[row : row + 1])]
        found = match_gradient(model, step, [64], seed=0)
        assert found.label == int(classes[row])
        assert found.agreement > 0.999
        assert cosine(found.record, inputs[row].numpy()) > 0.95


def test_a_step_away_from_many_records_gives_no_single_one_away(
    network: tuple[nn.Sequential, torch.Tensor, torch.Tensor],
) -> None:
    """Null case, and the reason to delete several people at once."""
    model, inputs, classes = network
    rows = slice(1000, 1064)
    found = match_gradient(model, gradient_of(model, inputs[rows], classes[rows]), [64], seed=0)
    assert max(cosine(found.record, image.numpy()) for image in inputs[rows]) < 0.9
    with pytest.raises(ValueError, match="the same"):
        match_gradient(model, [torch.zeros_like(part) for part in model.parameters()], [64], seed=0)
