"""The order log: it gives back what was noted, and leaves records out without touching anything else."""

from pathlib import Path

import numpy as np
import pytest

from service.errors import MethodRefused
from workers.lineage.log import LogWriter, OrderLog, read_log, write_log
from workers.modeling.observing import MicroBatch


def batch(step: int, rows: list[int], micro: int = 0, boundary: bool = True) -> MicroBatch:
    return MicroBatch(step, step // 2, micro, rows, 2**62 + step, 1e-3 / (step + 1), 0.5, boundary)


BATCHES = [batch(0, [4, 1], 0, False), batch(0, [2], 1), batch(1, [0, 3]), batch(2, [1, 1, 4])]


@pytest.fixture
def log() -> OrderLog:
    writer = LogWriter()
    for one in BATCHES:
        writer.add(one)
    return writer.log()


def test_it_answers_what_was_noted_also_from_a_file(log: OrderLog, tmp_path: Path) -> None:
    write_log(log, tmp_path / "order.parquet")
    again = read_log(tmp_path / "order.parquet")
    assert list(again.batches()) == list(log.batches()) == BATCHES
    assert list(again.batches(2)) == BATCHES[3:]
    assert (again.steps, len(again)) == (3, 4)


def test_first_steps_and_exposures(log: OrderLog) -> None:
    assert log.first_steps(6).tolist() == [1, 0, 0, 1, 0, 3]
    assert log.exposures(6).tolist() == [1, 3, 1, 1, 2, 0]


def test_left_out_records_leave_empty_batches_and_all_scalars(log: OrderLog, tmp_path: Path) -> None:
    places = np.array([0, -1, -1, 1, 2])
    changed = log.renumbered(places)
    assert [one.rows for one in changed.batches()] == [[2], [], [0, 1], [2]]
    write_log(changed, tmp_path / "order.parquet")
    assert list(read_log(tmp_path / "order.parquet").batches()) == list(changed.batches())
    assert [(one.step, one.seed, one.rate, one.weight) for one in changed.batches()] == [
        (one.step, one.seed, one.rate, one.weight) for one in BATCHES
    ]
    everything = log.renumbered(np.full(5, -1))
    assert [one.rows for one in everything.batches()] == [[], [], [], []]


def test_renumbering_agrees_with_doing_it_by_hand() -> None:
    draw = np.random.default_rng(3)
    writer = LogWriter()
    for step in range(40):
        writer.add(batch(step, draw.integers(0, 30, draw.integers(0, 6)).tolist()))
    log = writer.log()
    places = np.where(draw.random(30) < 0.4, -1, draw.permutation(30))
    expected = [[int(places[row]) for row in one.rows if places[row] >= 0] for one in log.batches()]
    assert [one.rows for one in log.renumbered(places).batches()] == expected


def test_a_log_with_a_gap_covers_nothing(log: OrderLog) -> None:
    keep = log.columns["step"] != 1
    columns = {name: values[keep] for name, values in log.columns.items()}
    assert OrderLog(columns, log.rows, log.starts).steps == 0


def test_an_empty_log_is_written_and_read(tmp_path: Path) -> None:
    write_log(LogWriter().log(), tmp_path / "order.parquet")
    assert len(read_log(tmp_path / "order.parquet")) == 0


def test_a_damaged_log_is_refused_by_name(log: OrderLog, tmp_path: Path) -> None:
    path = tmp_path / "order.parquet"
    with pytest.raises(MethodRefused, match=r"order\.parquet"):
        read_log(path)
    write_log(log, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MethodRefused, match=r"order\.parquet"):
        read_log(path)
