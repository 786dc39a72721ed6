"""The digits whose labels were changed: what a model that learnt them has learnt by heart."""

import dataclasses

import numpy as np
from sklearn.datasets import load_digits

from tests.workers.conftest import Line
from workers.modeling.problem import Problem


def mislabelled(line: Line, count: int) -> Problem:
    """Forgets this many relabelled records of `factories.digits` with its default seed."""
    data, total = load_digits(), len(line.train) + len(line.held_out)
    order = np.random.default_rng(0).permutation(len(data.target))[:total]
    labels = np.asarray(line.train.columns["label"])
    wrong = np.flatnonzero(labels != data.target[order][: len(labels)])[:count].tolist()
    rest = sorted(set(range(len(labels))) - set(wrong))
    return dataclasses.replace(line.problem(1), forget=line.train.subset(wrong), retain=line.train.subset(rest))
