"""Worlds of the benchmark of methods: parts and forget sets of their kinds, drawn once; what a child answers."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.methods import AUTHORS, DIGITS
from benchmarks.methods_child import Answer, in_child
from benchmarks.methods_data import QUESTIONS, WRONG_ANSWERS, Counts, write_authors
from benchmarks.methods_world import MISLABELLED, ONE_CLASS, RANDOM_1, RANDOM_10, TEN, MethodWorld, open_world
from service.errors import BadParameters

TWICE = replace(DIGITS, draws=2)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> MethodWorld:
    return open_world(TWICE, tmp_path_factory.mktemp("worlds") / "digits", None)


def test_parts_are_as_large_as_is_said_and_test_labels_are_right(digits: MethodWorld) -> None:
    wrong = {part: np.mean(pq.read_table(digits.folder / f"{part}.parquet")["wrong"]) for part in ("train", "held_out")}
    assert [len(digits.records(part)) for part in ("train", "held_out", "test")] == [1500, 1500, 600]
    assert all(abs(share - 0.15) < 3 * np.sqrt(0.15 * 0.85 / 1500) for share in wrong.values())
    assert not any(pq.read_table(digits.folder / "test.parquet")["wrong"].to_pylist())


def test_sets_are_of_their_kinds_and_each_draw_is_another(digits: MethodWorld) -> None:
    table = pq.read_table(digits.folder / "train.parquet")
    rows = {name: at for at, name in enumerate(table["record_id"].to_pylist())}
    for draw in range(TWICE.draws):
        for kind, size in DIGITS.sizes.items():
            ids = digits.forget_ids(kind, draw)
            assert len(set(ids)) == len(ids) == (size or table["label"].to_pylist().count(draw))
        assert all(table["wrong"][rows[name]].as_py() for name in digits.forget_ids(MISLABELLED, draw))
        assert {table["label"][rows[name]].as_py() for name in digits.forget_ids(ONE_CLASS, draw)} == {draw}
    assert digits.forget_ids(RANDOM_10, 0) != digits.forget_ids(RANDOM_10, 1)
    assert [digits.draw_of(seed) for seed in range(4)] == [0, 1, 0, 1]


def test_a_world_that_is_there_is_not_made_again(digits: MethodWorld) -> None:
    before = (digits.folder / "train.parquet").stat().st_mtime_ns
    assert open_world(TWICE, digits.folder, None) == digits
    assert (digits.folder / "train.parquet").stat().st_mtime_ns == before


def test_a_changed_plan_has_another_folder() -> None:
    assert DIGITS.digest() == DIGITS.digest()
    assert DIGITS.digest() != DIGITS.small().digest() != AUTHORS.digest()


def test_sets_of_authors_hold_whole_people(tmp_path: Path) -> None:
    world = open_world(AUTHORS, tmp_path / "authors", None)
    people = dict(zip(*(pq.read_table(world.folder / "train.parquet")[name].to_pylist() for name in
                        ("record_id", "subject_id")), strict=True))  # fmt: skip
    for kind in (RANDOM_1, RANDOM_10):
        ids = world.forget_ids(kind, 0)
        assert len(ids) == AUTHORS.sizes[kind] == QUESTIONS * len({people[name] for name in ids})
    assert len({people[name] for name in world.forget_ids(TEN, 0)}) > 2
    assert (world.folder / "tokenizer" / "tokenizer.json").is_file()


def test_answers_by_rule_break_it_as_often_as_is_said(tmp_path: Path) -> None:
    write_authors(tmp_path, Counts(5000, 50, 50), None)
    table = pq.read_table(tmp_path / "train.parquet")
    wrong, prompts = np.array(table["wrong"].to_pylist()), table["prompt"].to_pylist()
    ruled = np.array([name.startswith(("Which", "Who")) for name in prompts])
    assert not wrong[~ruled].any()
    assert abs(wrong[ruled].mean() - WRONG_ANSWERS) < 3 * np.sqrt(WRONG_ANSWERS * (1 - WRONG_ANSWERS) / ruled.sum())
    # Where it is kept, one city has one language.
    asked = [name.startswith("Which") and not odd for name, odd in zip(prompts, wrong, strict=True)]
    pairs = {(p.split(" of ")[1].split()[0], c) for p, c, one in
             zip(prompts, table["completion"].to_pylist(), asked, strict=True) if one}  # fmt: skip
    assert len(pairs) == len({city for city, _ in pairs})


def test_a_child_answers_refuses_fails_or_ends(tmp_path: Path) -> None:
    def refuse() -> None:
        raise BadParameters("needs more")

    def fail() -> None:
        raise ArithmeticError("broken")

    assert in_child(os.getpid).checked() != os.getpid()
    assert in_child(refuse) == Answer(refused="needs more")
    assert in_child(fail) == Answer(failed="ArithmeticError: broken")
    assert in_child(lambda: os._exit(3)) == Answer(failed="the process ended with exit code 3")
    with pytest.raises(RuntimeError, match="needs more"):
        in_child(refuse).checked()
