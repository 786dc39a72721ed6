"""Checks of the weights as they are stored, beside those as served, from made-up scores."""

import numpy as np
import pyarrow as pa
import pytest

from service.verification.policy import Policy
from tests.workers.synthetic import World
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import NO_REFERENCES
from workers.planning.served import with_full_precision


@pytest.mark.parametrize(("gone", "left"), [(frozenset({3}), 570), (None, 570), (frozenset(), 600)])
def test_both_precisions_leave_out_the_classes_that_were_forgotten(gone: frozenset[int] | None, left: int) -> None:
    """Forgotten records are of class 3; whether any retained one is, a sample of these does not say."""
    tables = {}
    for name, table in World(forget=60).tables(original=2.0, candidate=0.0).items():
        sets = np.array(table["set"].to_pylist())
        label = np.where(sets == "forget", 3, np.arange(len(sets)) % 3)
        label[np.flatnonzero(sets == "held_out")[:30]] = 3
        tables[name] = table.append_column("label", pa.array(label))
    facts = Facts(precision="int8", forgotten_classes=gone)
    found = assess(tables, "image-classification", Policy(), facts=facts)
    both = with_full_precision(found, tables, Policy(), facts, None, NO_REFERENCES)
    sizes = [check.n for check in (both.check("utility"), both.check("utility_fp32")) if check is not None]
    assert sizes == [left, left]
