"""Tables of a side against plain NumPy, from score files written by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from service.errors import JobError, Unevaluable
from workers.references.layout import SCORES_FILE, Planned, read_table, write_table
from workers.references.split import plan_split, pool_key
from workers.references.tables import SideTable, side_table

SIZE, OTHERS, COUNT = 40, 15, 8


@pytest.fixture
def planned() -> Planned:
    train = np.array([f"r{at:02d}" for at in range(SIZE)])
    held_out = np.array([f"r{at:02d}" for at in range(OTHERS)])  # the same names: sets are separate
    owners = np.array([f"s{at // 2}" for at in range(SIZE)])
    return Planned(train, held_out, plan_split(owners, held_out, COUNT, pool_key(1, "00")))


def scores_of(number: int, planned: Planned) -> dict[str, np.ndarray]:
    """Per record of both sets; large offsets would show a variance that is not computed stably."""
    draw = np.random.default_rng(number)
    size = len(planned.train) + len(planned.held_out)
    return {
        "confidence": 1e6 + draw.normal(size=size),
        "correct": draw.random(size) < 0.6,
        "loss": draw.exponential(size=size),
        "nll": draw.exponential(20, size=size),
        "utf8_bytes": draw.integers(0, 90, size),
        "token_accuracy": draw.random(size),
    }


def write_members(folder: Path, planned: Planned) -> list[Path]:
    ids = np.concatenate([planned.train, planned.held_out])
    sets = ["train"] * len(planned.train) + ["held_out"] * len(planned.held_out)
    split = planned.split
    for number in range(COUNT):
        flags = {
            "in": np.concatenate([split.trained_by(number), np.zeros(len(planned.held_out), dtype=bool)]),
            "out": np.concatenate([split.out_of(number), split.held_out_of(number)]),
        }
        columns = {"record_id": ids, "subject_id": ids, "set": sets} | flags | scores_of(number, planned)
        (folder / f"member-{number:03d}").mkdir()
        write_table(folder / f"member-{number:03d}" / SCORES_FILE, pa.table(columns))
    return [folder / f"member-{number:03d}" for number in range(COUNT)]


@pytest.mark.parametrize(
    ("task", "per_byte"), [("image-classification", False), ("causal-lm", False), ("causal-lm", True)]
)
def test_statistics_are_those_of_numpy(tmp_path: Path, planned: Planned, task: str, per_byte: bool) -> None:
    table = side_table(planned, write_members(tmp_path, planned), task, per_byte)
    assert table["record_id"].to_pylist() == [*planned.train, *planned.held_out]
    assert table["set"].to_pylist() == ["train"] * SIZE + ["held_out"] * OTHERS
    columns = table.to_pydict()
    for row in range(SIZE + OTHERS):
        found: dict[str, list[tuple[float, float]]] = {"in": [], "out": []}
        for number in range(COUNT):
            values = {name: column[row] for name, column in scores_of(number, planned).items()}
            if task == "image-classification":
                pair = (values["confidence"], values["correct"])
            elif per_byte:
                pair = (-values["nll"] / max(values["utf8_bytes"], 1), values["token_accuracy"])
            else:
                pair = (-values["loss"], values["token_accuracy"])
            split, train = planned.split, row < SIZE
            if train and split.trained_by(number)[row]:
                found["in"].append(pair)
            if (split.out_of(number)[row]) if train else split.held_out_of(number)[row - SIZE]:
                found["out"].append(pair)
        for kind, pairs in found.items():
            scores = np.array([pair[0] for pair in pairs])
            assert columns[f"{kind}_count"][row] == len(pairs)
            if len(pairs):
                assert columns[f"{kind}_mean"][row] == pytest.approx(scores.mean(), rel=1e-12)
                assert columns[f"{kind}_var"][row] == pytest.approx(scores.var(ddof=1), rel=1e-6)
                assert columns[f"{kind}_correct"][row] == pytest.approx(np.mean([pair[1] for pair in pairs]))
            else:
                assert np.isnan([columns[f"{kind}_{name}"][row] for name in ("mean", "var", "correct")]).all()


def test_every_record_has_equally_many_out_references(tmp_path: Path, planned: Planned) -> None:
    table = side_table(planned, write_members(tmp_path, planned), "image-classification")
    assert set(table["out_count"].to_pylist()) == {COUNT // 2}
    assert set(table["in_count"].to_pylist()[:SIZE]) == {COUNT // 2}
    assert set(table["in_count"].to_pylist()[SIZE:]) == {0}


def test_rows_are_found_by_set_and_id_whatever_the_order(tmp_path: Path, planned: Planned) -> None:
    side = SideTable(side_table(planned, write_members(tmp_path, planned), "image-classification"))
    some = np.array(["r07", "r03", "r11"])
    judged = side.judged("held_out", some, np.array([1.0, 2.0, 3.0]), np.array(["a", "b", "b"]))
    assert judged.mean.tolist() == side.column("out_mean")[SIZE + np.array([7, 3, 11])].tolist()
    assert judged.count.tolist() == [4.0, 4.0, 4.0]
    memorized = side.memorization(some)
    expected = side.column("in_correct")[[7, 3, 11]] - side.column("out_correct")[[7, 3, 11]]
    assert memorized.tolist() == expected.tolist()
    with pytest.raises(Unevaluable, match="1 of 1 records"):
        side.judged("held_out", np.array(["r39"]), np.zeros(1), np.array(["a"]))


def test_deleted_records_fall_out_and_missing_ones_are_noticed(tmp_path: Path, planned: Planned) -> None:
    members = write_members(tmp_path, planned)
    fewer = planned.without({"r05", "r06"})
    whole, part = (side_table(each, members, "image-classification") for each in (planned, fewer))
    assert part.num_rows == whole.num_rows - 2
    kept = [row for row, name in enumerate(whole["record_id"].to_pylist()) if name not in ("r05", "r06") or row >= SIZE]
    expected = whole.take(pa.array(kept))
    assert part.column_names == expected.column_names
    for name in part.column_names:
        np.testing.assert_array_equal(part[name].to_pylist(), expected[name].to_pylist())
    more = Planned(np.append(planned.train, "new"), planned.held_out, planned.split)
    with pytest.raises(JobError, match="1 records of the pool have no score"):
        side_table(more, members, "image-classification")


def test_scores_that_are_not_finite_are_refused(tmp_path: Path, planned: Planned) -> None:
    members = write_members(tmp_path, planned)
    table = read_table(members[2] / SCORES_FILE)
    bad = table["confidence"].to_numpy().copy()
    bad[4] = np.nan
    changed = table.set_column(table.column_names.index("confidence"), "confidence", pa.array(bad))
    write_table(members[2] / SCORES_FILE, changed)
    with pytest.raises(JobError, match="member-002"):
        side_table(planned, members, "image-classification")
