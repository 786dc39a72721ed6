"""Fingerprints: a cheap number that is the same wherever the model sees the same, so that nothing else is decoded."""

import numpy as np

from tests.workers import factories
from workers.lineage.duplicates import find_duplicates
from workers.modeling.batching import Encoded
from workers.modeling.images import ImageClassification, Preparation
from workers.modeling.records import MemoryRecords, joined


def test_the_table_is_the_same_with_and_without_them() -> None:
    data, _ = factories.digits(120, 10, noise=0.0)
    rows = [3, 40, 77]
    columns = {role: [values[at] for at in rows] for role, values in data.columns.items()}
    columns["label"][2] = (columns["label"][2] + 1) % 10  # the same picture under another label is another record
    copies = MemoryRecords(data.task, ["copy-1", "copy-2", "copy-3"], ["someone"] * 3, columns)
    both = joined(data, copies)
    prints = Encoded(ImageClassification(1, 10, Preparation()), both).fingerprints()
    assert prints is not None
    assert prints.dtype == np.uint64
    assert prints[3] == prints[120]
    assert prints[40] == prints[121]
    assert prints[77] != prints[122]
    table = find_duplicates(both, prints)
    assert table.equals(find_duplicates(both))
    pairs = zip(table["left"].to_pylist(), table["right"].to_pylist(), strict=True)
    expected = {frozenset(("copy-1", str(data.ids[3]))), frozenset(("copy-2", str(data.ids[40])))}
    assert {frozenset(pair) for pair in pairs} == expected


def test_there_are_none_where_the_records_are_not_held() -> None:
    data, _ = factories.digits(50, 10)
    assert Encoded(ImageClassification(1, 10, Preparation()), data, cache_bytes=10).fingerprints() is None
