"""Which records belong to whom."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from service.datasets.index import build_index, find_many, find_records
from service.errors import BadDataset
from tests.service.factories import IDENTIFIERS, image_rows, write_parquet


@pytest.fixture
def dataset(tmp_path: Path, home: Path) -> SimpleNamespace:
    """An indexed dataset of six people with four records each."""
    path, index = write_parquet(tmp_path / "d.parquet", image_rows()), tmp_path / "index.parquet"
    build_index(path, "image-classification", None, IDENTIFIERS, index)
    return SimpleNamespace(
        task="image-classification", path=str(path), columns={}, identifiers=IDENTIFIERS, index_path=str(index)
    )


def _digest(text: str, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, text.encode(), usedforsecurity=False).hexdigest()


OF_S1 = {"r0004", "r0005", "r0006", "r0007"}


@pytest.mark.parametrize(
    "identifier",
    [
        {"type": "subject_id", "value": "s1"},
        {"type": "email", "value": "person1@example.org"},
        {"type": "phone", "value": "4930100001"},
        {"type": "subject_id", "value": _digest("s1"), "format": "sha256"},
        {"type": "email", "value": _digest("person1@example.org"), "format": "sha256"},
        {"type": "email", "value": _digest("person1@example.org", "md5"), "format": "md5"},
        {"type": "phone", "value": _digest("+4930100001", "sha1"), "format": "sha1"},
        {"type": "phone", "value": _digest("4930100001"), "format": "sha256"},
    ],
)
def test_every_way_to_name_a_person_finds_the_same_records(
    dataset: SimpleNamespace, identifier: dict[str, str]
) -> None:
    assert find_records(dataset, [identifier]) == OF_S1


def test_several_identifiers_join_and_unknown_ones_find_nothing(dataset: SimpleNamespace) -> None:
    both = [{"type": "subject_id", "value": "s1"}, {"type": "email", "value": "person0@example.org"}]
    assert len(find_records(dataset, both)) == 8
    nobody = [
        {"type": "email", "value": "nobody@example.org"},
        {"type": "controller_customer_id", "value": "s1"},
        {"type": "email", "value": _digest("nobody"), "format": "sha256"},
        {"type": "loyalty_card", "value": _digest("s1"), "format": "sha256"},
    ]
    assert find_records(dataset, nobody) == set()
    assert find_records(dataset, []) == set()


def test_a_type_is_part_of_the_key(dataset: SimpleNamespace) -> None:
    assert find_records(dataset, [{"type": "email", "value": "s1"}]) == set()


def test_many_people_are_looked_up_at_once(dataset: SimpleNamespace) -> None:
    subjects = {f"req_{n}": [{"type": "subject_id", "value": f"s{n % 6}"}] for n in range(12)}
    subjects["req_none"] = [{"type": "subject_id", "value": "s99"}]
    found = find_many(dataset, subjects)
    assert found["req_1"] == found["req_7"] == OF_S1
    assert found["req_none"] == set()
    assert len(set().union(*found.values())) == 24


def test_the_index_names_nobody_and_is_sorted(dataset: SimpleNamespace) -> None:
    table = pq.read_table(dataset.index_path)
    keys = table.column("key").to_pylist()
    assert keys == sorted(keys)
    assert table.num_rows == 72
    content = Path(dataset.index_path).read_bytes().lower()
    assert b"person" not in content
    assert b"s1" not in {key.encode() for key in keys}


def test_gaps_in_further_identifiers_are_left_out(tmp_path: Path, home: Path) -> None:
    rows = image_rows()
    rows["mail"][4:8] = [None, "", "  ", None]
    path, index = write_parquet(tmp_path / "d.parquet", rows), tmp_path / "i.parquet"
    build_index(path, "image-classification", None, {"email": "mail"}, index)
    assert pq.read_table(index).num_rows == 24 + 20


def test_a_damaged_index_is_told(dataset: SimpleNamespace) -> None:
    Path(dataset.index_path).write_bytes(b"PAR1")
    with pytest.raises(BadDataset, match="register the model again"):
        find_records(dataset, [{"type": "subject_id", "value": "s1"}])
