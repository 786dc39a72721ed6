"""Worlds of the gate's self-test: disjoint forget sets of the right kinds, and records that are alike by nature."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.gate_data import CLASSES, ODD, Maker, notes, texts, words
from benchmarks.gate_lm import PLAN as LM
from benchmarks.gate_text import PLAN as TEXT
from benchmarks.gate_world import BIG, MISLABELLED, ONE_CLASS, ONE_PERSON, GateWorld, Plan, open_gate_world


@pytest.fixture(scope="module", params=[TEXT, LM], ids=["text", "lm"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, GateWorld]:
    plan: Plan = request.param
    return plan, open_gate_world(plan, tmp_path_factory.mktemp("world") / "made", retrains=2)


def test_a_retrain_leaves_out_ten_disjoint_sets(built: tuple[Plan, GateWorld]) -> None:
    plan, world = built
    for name, left_out in world.forget_sets().items():
        assert len([each for each in world.sets() if each.retrain == name]) == 10
        assert len(left_out) == len(set(left_out))
        # Little enough that a retrain is as useful as the original.
        assert len(left_out) < 0.25 * plan.train


def test_kinds_are_what_they_say(built: tuple[Plan, GateWorld]) -> None:
    plan, world = built
    made = plan.make(plan.train + plan.held_out, np.random.default_rng(0))
    subjects = pq.read_table(world.folder / "train.parquet")["subject_id"].to_pylist()
    for each in world.sets():
        rows = [int(name.removeprefix("record-")) for name in each.ids]
        if each.kind == MISLABELLED:
            assert made.odd[rows].all()
        elif each.kind == ONE_CLASS:
            assert len(set(made.groups[rows].tolist())) == 1
        people = len({subjects[at] for at in rows})
        assert (people, len(rows)) == (1, BIG) if each.kind == ONE_PERSON else people == len(rows)


def test_a_world_that_is_there_is_not_made_again(built: tuple[Plan, GateWorld], tmp_path: Path) -> None:
    plan, world = built
    before = (world.folder / "train.parquet").stat().st_mtime_ns
    again = open_gate_world(plan, world.folder, retrains=2)
    assert (world.folder / "train.parquet").stat().st_mtime_ns == before
    assert again == world
    other = open_gate_world(plan, tmp_path / "other", retrains=2)
    assert other.sets() == world.sets()


def test_a_changed_plan_has_another_folder() -> None:
    assert TEXT.digest(20) != TEXT.digest(19)
    assert TEXT.digest(20) != TEXT.small().digest(20)
    assert TEXT.digest(20) == TEXT.digest(20)


@pytest.mark.parametrize("make", [texts, notes])
def test_records_are_odd_as_often_as_is_said_and_all_different(make: Maker) -> None:
    made = make(3000, np.random.default_rng(4))
    assert abs(made.odd.mean() - ODD) < 3 * np.sqrt(ODD * (1 - ODD) / 3000)
    assert len(set(made.columns["text"])) == 3000
    assert set(made.classes.tolist()) == set(range(CLASSES))


def test_odd_labels_are_wrong_and_others_right() -> None:
    made = texts(500, np.random.default_rng(5))
    assert ((np.array(made.columns["label"]) != made.classes) == made.odd).all()


def test_words_are_different_and_always_the_same() -> None:
    assert len(set(words())) == len(words())
    assert words() == words()
