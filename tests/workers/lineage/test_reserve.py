"""The reserve: whole people, a share of each stratum, by a keyed coin; and nobody where there are too few."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from service.errors import BadModel, BadParameters
from tests.workers.factories import conversations, digits
from workers.lineage.reserve import (
    forget_reserved,
    read_reserve,
    reserve_digest,
    split_reserve,
    why_nobody,
    write_reserve,
)
from workers.modeling.records import MemoryRecords

KEY = b"r" * 32


def people(labels: list[int], rows: int = 3) -> MemoryRecords:
    """Subject i with `rows` records, most of them of label `labels[i]`, the first of label 99 - that."""
    ids = [f"{person}-{row}" for person in range(len(labels)) for row in range(rows)]
    owners = [f"p{person:04d}" for person in range(len(labels)) for _ in range(rows)]
    marks = [99 - label if row == 0 and rows > 2 else label for label in labels for row in range(rows)]
    return MemoryRecords("text-classification", ids, owners, {"text": ids, "label": marks})


def per_label(labels: list[int], reserve: MemoryRecords) -> dict[int, int]:
    chosen = {int(name[1:]) for name in np.unique(reserve.subjects)}
    return {label: sum(labels[at] == label for at in chosen) for label in set(labels)}


def texts(sizes: list[int]) -> MemoryRecords:
    names = [f"p{at:04d}" for at in range(len(sizes))]
    return MemoryRecords("causal-lm", names, names, {"text": ["ä" * size for size in sizes]})


def test_nobody_is_divided_and_every_record_is_on_one_side() -> None:
    records, _ = digits(1400, 0)
    train, reserve = split_reserve(records, 0.1, KEY)
    assert not set(train.subjects) & set(reserve.subjects)
    assert sorted([*train.ids, *reserve.ids]) == sorted(records.ids)
    assert 0 < len(reserve) < len(train)
    row = int(reserve.rows_of([reserve.ids[5]])[0])
    assert reserve.take([row]) == records.take(records.rows_of([reserve.ids[5]]).tolist())


def test_each_label_gives_its_share_by_the_majority_of_a_person() -> None:
    labels = [0] * 200 + [1] * 100 + [2] * 34 + [3] * 20
    _, reserve = split_reserve(people(labels), 0.03, KEY)
    assert per_label(labels, reserve) == {0: 6, 1: 3, 2: 1, 3: 1}
    _, reserve = split_reserve(people(labels), 0.5, KEY)
    assert per_label(labels, reserve) == {0: 100, 1: 50, 2: 17, 3: 10}


def test_small_labels_are_put_together_so_that_their_share_is_not_rounded_away() -> None:
    labels = [at // 10 for at in range(300)]
    _, reserve = split_reserve(people(labels), 0.03, KEY)
    assert len(set(reserve.subjects)) == 9
    labels = [0] * 100 + [1] * 5
    _, reserve = split_reserve(people(labels), 0.05, KEY)
    assert per_label(labels, reserve) == {0: 5, 1: 0}


def test_language_models_are_stratified_by_the_amount_of_text() -> None:
    sizes = np.random.default_rng(0).permutation(np.arange(1, 401)).tolist()
    _, reserve = split_reserve(texts(sizes), 0.1, KEY)
    lengths = np.array([len(text) for text in reserve.take(range(len(reserve)))["text"]])
    assert np.histogram(lengths, [1, 101, 201, 301, 401])[0].tolist() == [10, 10, 10, 10]
    # Everybody alike is one stratum.
    assert len(split_reserve(texts([7] * 100), 0.05, KEY)[1]) == 5


def test_prompt_and_completion_both_count_as_text() -> None:
    records, _ = conversations(80)
    train, reserve = split_reserve(records, 0.05, KEY)
    assert len(set(reserve.subjects)) == 4  # one of the twenty in each quarter
    assert len(train) + len(reserve) == 5 * 80


def test_the_coin_is_keyed_and_follows_its_definition() -> None:
    records = texts([7] * 100)
    expected = sorted(
        records.ids,
        key=lambda name: hashlib.blake2b(name.encode(), key=KEY, digest_size=16, person=b"lethe/reserve").digest(),
    )[:10]
    _, reserve = split_reserve(records, 0.1, KEY)
    assert set(reserve.ids) == set(expected)
    _, other = split_reserve(records, 0.1, b"o" * 32)
    assert set(other.ids) != set(expected)


def test_the_order_of_the_records_does_not_matter() -> None:
    records, _ = digits(800, 0)
    _, reserve = split_reserve(records, 0.1, KEY)
    turned = records.subset(np.random.default_rng(1).permutation(len(records)).tolist())
    _, again = split_reserve(turned, 0.1, KEY)
    assert set(again.ids) == set(reserve.ids)


def test_coins_are_fair_and_unrelated_to_each_other() -> None:
    records = texts([7] * 60)
    times = np.zeros(60)
    for number in range(300):
        _, reserve = split_reserve(records, 0.25, number.to_bytes(32, "big"))
        times[records.rows_of(reserve.ids)] += 1
    # Each person is drawn with probability 1/4: binomial(300, 1/4), standard deviation 7.5.
    assert times.mean() == 75
    assert np.all(np.abs(times - 75) < 4.5 * 7.5)
    assert 0.6 < times.std() / 7.5 < 1.4


@pytest.mark.parametrize(("count", "reserved"), [(0, 0), (1, 0), (39, 0), (40, 1), (41, 1)])
def test_too_few_people_are_left_alone_and_the_reason_is_told(count: int, reserved: int) -> None:
    records = people([0] * count)
    train, reserve = split_reserve(records, 0.03, KEY)
    assert (len(train), len(reserve)) == (3 * (count - reserved), 3 * reserved)
    told = why_nobody(records)
    assert told is None if reserved else f"holds {count} people" in str(told)


@pytest.mark.parametrize("classes", [1, 3, 7, 40, 200])
def test_from_forty_people_on_somebody_is_always_set_aside(classes: int) -> None:
    for count in (40, 57, 83):
        labels = [at % classes for at in range(count)]
        assert len(split_reserve(people(labels, rows=1), 0.001, KEY)[1]) >= 1


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6, float("nan")])
def test_a_reserve_is_a_part(share: float) -> None:
    with pytest.raises(BadParameters, match="share"):
        split_reserve(people([0] * 50), share, KEY)


def test_the_reserve_comes_back_from_disk_readable_by_its_owner_alone(tmp_path: Path) -> None:
    assert read_reserve(tmp_path) == set()
    write_reserve([], tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_reserve(["b", "ä", "a"], tmp_path)
    path = tmp_path / "reserve.parquet"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_reserve(tmp_path) == {"a", "b", "ä"}
    path.write_bytes(b"something else")
    with pytest.raises(BadModel, match=r"reserve\.parquet"):
        read_reserve(tmp_path)


def test_whoever_is_deleted_leaves_the_list_and_nothing_else_changes(tmp_path: Path) -> None:
    assert forget_reserved(tmp_path, ["a"]) == 0
    assert list(tmp_path.iterdir()) == []
    write_reserve(["a", "b", "ä"], tmp_path)
    path = tmp_path / "reserve.parquet"
    before = path.read_bytes()
    assert forget_reserved(tmp_path, ["c", "aa"]) == forget_reserved(tmp_path, []) == 0
    assert path.read_bytes() == before
    assert forget_reserved(tmp_path, ["b", "ä", "c"]) == 2
    assert read_reserve(tmp_path) == {"a"}
    assert "ä".encode() not in path.read_bytes()
    assert forget_reserved(tmp_path, ["b", "ä", "c"]) == 0
    assert forget_reserved(tmp_path, {"a"}) == 1
    assert read_reserve(tmp_path) == set()
    assert [entry.name for entry in tmp_path.iterdir()] == ["reserve.parquet"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"something else")
    with pytest.raises(BadModel, match=r"reserve\.parquet"):
        forget_reserved(tmp_path, ["a"])


def test_the_digest_is_of_the_members_alone() -> None:
    assert reserve_digest({"b", "a"}) == reserve_digest(["a", "b"]) == hashlib.sha256(b'["a","b"]').hexdigest()
    assert reserve_digest(["a"]) != reserve_digest(["a", "b"])
