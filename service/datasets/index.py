"""The subject index: which records belong to these identifiers.

A Parquet file of (type, key, record_id) sorted by key, made at registration; `key` is the keyed pseudonym, so that the
file alone names nobody. Hashed identifiers cannot be looked up by pseudonym: their columns are scanned.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from service.datasets.columns import Columns
from service.datasets.places import flush
from service.datasets.sources import available_columns, open_source, read
from service.errors import BadDataset
from service.subjects.identifiers import hashes, normalise_stored, pseudonym

SUBJECT = "subject_id"
Identifier = Mapping[str, str]
"""`type`, normalised `value`, and `format` (raw when absent)."""

_ROW_GROUP = 50_000


class IndexedDataset(Protocol):
    """What a look-up needs of a dataset row."""

    task: Any
    path: Any
    columns: Any
    identifiers: Any
    index_path: Any


def build_index(
    path: Path, task: str, columns: dict[str, str] | None, identifiers: dict[str, str], out_path: Path
) -> None:
    """Write the index of a dataset that `check_records` has passed. A null further identifier is left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen, sought = _columns(path, task, columns, identifiers)
    kinds: list[str] = []
    keys: list[str] = []
    records: list[str] = []
    for kind, name in sought.items():
        known: dict[str, str] = {}
        for record_id, value in _pairs(path, chosen.record_id, name):
            if value not in known:
                known[value] = pseudonym(kind, normalise_stored(kind, value))
            kinds.append(kind)
            keys.append(known[value])
            records.append(record_id)
    table = pa.table({"type": pa.array(kinds).dictionary_encode(), "key": keys, "record_id": records})
    out_path.parent.mkdir(parents=True, exist_ok=True)
    draft = out_path.with_name(f".{out_path.name}.{os.getpid()}")
    pq.write_table(table.sort_by([("key", "ascending"), ("record_id", "ascending")]), draft, row_group_size=_ROW_GROUP)
    flush(draft)
    os.replace(draft, out_path)
    flush(out_path.parent)


def find_records(dataset: IndexedDataset, identifiers: Sequence[Identifier]) -> set[str]:
    """The record ids that belong to a person with these identifiers."""
    return find_many(dataset, {"": identifiers})[""]


def find_many(dataset: IndexedDataset, subjects: Mapping[str, Sequence[Identifier]]) -> dict[str, set[str]]:
    """Request id -> record ids, for many people in one look-up.

    An identifier of a type that the dataset does not hold finds nothing. Raises BadDataset for an unreadable index.
    """
    found: dict[str, set[str]] = {name: set() for name in subjects}
    raw: dict[tuple[str, str], set[str]] = defaultdict(set)
    hashed: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, identifiers in subjects.items():
        for identifier in identifiers:
            kind, value, form = identifier["type"], identifier["value"], identifier.get("format", "raw")
            if form == "raw":
                raw[kind, pseudonym(kind, value)].add(name)
            else:
                hashed[kind, form][value].add(name)
    for kind, key, record_id in _look_up(Path(dataset.index_path), {key for _, key in raw}):
        for name in raw.get((kind, key), ()):
            found[name].add(record_id)
    for (kind, form), wanted in hashed.items():
        _scan(dataset, kind, form, wanted, found)
    return found


def _look_up(index_path: Path, keys: set[str]) -> Iterable[tuple[str, str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not keys:
        return
    try:
        table = pq.read_table(index_path, filters=[("key", "in", sorted(keys))])
    except (pa.ArrowException, OSError) as error:
        raise BadDataset(f"{index_path}: the subject index cannot be read; register the model again") from error
    yield from zip(*(table.column(name).to_pylist() for name in ("type", "key", "record_id")), strict=True)


def _scan(
    dataset: IndexedDataset, kind: str, form: str, wanted: Mapping[str, set[str]], found: dict[str, set[str]]
) -> None:
    path = Path(dataset.path)
    chosen, sought = _columns(path, dataset.task, dataset.columns, dataset.identifiers)
    if kind not in sought:
        return
    owners: dict[str, set[str]] = {}
    for record_id, value in _pairs(path, chosen.record_id, sought[kind]):
        if value not in owners:
            digests = hashes(kind, normalise_stored(kind, value), form)
            owners[value] = set().union(*(wanted[digest] for digest in digests if digest in wanted))
        for name in owners[value]:
            found[name].add(record_id)


def _columns(
    path: Path, task: str, columns: dict[str, str] | None, identifiers: Mapping[str, str]
) -> tuple[Columns, dict[str, str]]:
    chosen = Columns.for_task(task, columns, available_columns(open_source(path)))
    return chosen, {SUBJECT: chosen.subject_id, **identifiers}


def _pairs(path: Path, record_column: str, value_column: str) -> Iterable[tuple[str, str]]:
    names = list(dict.fromkeys([record_column, value_column]))
    for _, batch in read(open_source(path), names, set(names)):
        records, values = batch.column(record_column).to_pylist(), batch.column(value_column).to_pylist()
        for record_id, value in zip(records, values, strict=True):
            if value is not None and value.strip():
                yield record_id, value
