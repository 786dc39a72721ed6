"""Distances to retrains by hand, and the band that retrains span among themselves."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bar_world import Sizes, open_bar_world
from benchmarks.closeness import Read, band, distance, within


def read(forget: list[float], test: list[float], accuracy: float) -> Read:
    return Read(np.array(forget), np.array(test), accuracy)


def test_the_loss_attack_counts_ties_as_one_half() -> None:
    assert read([0.0, 3.0], [1.0, 2.0], 0.9).auc == 0.5
    assert read([0.0], [1.0, 2.0], 0.9).auc == 1.0
    assert read([1.0], [1.0, 2.0], 0.9).auc == 0.75


def test_distances_are_from_the_mean_of_the_retrains() -> None:
    retrains = [read([1.0, 2.0], [0.5, 3.0], 0.8), read([3.0, 4.0], [0.5, 3.0], 0.9)]
    found = distance(read([2.0, 5.0], [0.5, 3.0], 0.95), retrains)
    assert (found.median, found.accuracy) == (pytest.approx(1.0), pytest.approx(0.1))
    assert found.p95 == pytest.approx(1.9)
    # 0.25 against the mean of 0.5 and of one tie and one miss, 0.125.
    assert found.auc == pytest.approx(0.25 - (0.5 + 0.125) / 2)


def test_a_retrain_lies_inside_the_band_of_the_others_and_doing_nothing_outside() -> None:
    draw = np.random.default_rng(0)
    hard, test = draw.gamma(1.0, 1.0, 200), draw.gamma(1.0, 1.0, 2000)
    made = [Read(hard + draw.normal(0, 0.1, 200), test, 0.88 + draw.normal(0, 0.002)) for _ in range(6)]
    allowed = band(made[:5])
    assert allowed.auc >= 0.02
    assert allowed.accuracy >= 0.005
    inside = within(distance(made[5], made[:5]), allowed)
    assert inside["auc"]
    assert inside["accuracy"]
    assert not within(distance(Read(hard * 0.3, test, 0.88), made[:5]), allowed)["p95"]


def test_the_world_is_drawn_once_and_its_sets_are_of_their_kinds(tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    draw = np.random.default_rng(0)
    for part, count in (("train", 300), ("t10k", 50)):
        pixels, labels = draw.integers(0, 256, count * 784, dtype=np.uint8), draw.integers(0, 10, count, dtype=np.uint8)
        for name, head, body in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            (source / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(bytes(head) + body.tobytes()))
    sizes = Sizes(200, 100, {"10 random": 10, "5 mislabelled": 5}, 3, 16)
    with pytest.raises(SystemExit, match="--data"):
        open_bar_world(tmp_path / "world", None, sizes)
    world = open_bar_world(tmp_path / "world", source, sizes)
    assert [len(world.records(part)) for part in ("train", "held_out", "test")] == [200, 100, 50]
    sets = world.forget_sets()
    assert [len(ids) for ids in sets.values()] == [10, 5]
    assert open_bar_world(tmp_path / "world", None, sizes).forget_sets() == sets
