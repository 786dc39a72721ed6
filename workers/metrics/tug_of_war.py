"""Tug of war (RUM, arXiv 2406.01257): how close a model's accuracies are to a retrain's, as a product of three.

ToW = (1 - |f_u - f_r|) (1 - |k_u - k_r|) (1 - |t_u - t_r|) with accuracies on forgotten, retained and held-out records.
ToW-MIA puts the share of forgotten records that an attack calls non-members in the place of forget accuracy. 1 is
best, but doing nothing often scores near 1 too: always read both beside doing nothing and retrain to retrain.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from service.verification.statistics import Array

SAMPLE = 1000


@dataclass(frozen=True)
class Levels:
    """One model's accuracies on the three sets, and its MIA efficacy (see `mia_efficacy`)."""

    forget: float
    retain: float
    held_out: float
    efficacy: float


def tow(model: Levels, retrained: Levels) -> float:
    """Tug of war against one retrained model, 0 to 1."""
    return (1 - abs(model.forget - retrained.forget)) * _kept(model, retrained)


def tow_mia(model: Levels, retrained: Levels) -> float:
    """The same with MIA efficacy in place of forget accuracy."""
    return (1 - abs(model.efficacy - retrained.efficacy)) * _kept(model, retrained)


def _kept(model: Levels, retrained: Levels) -> float:
    return (1 - abs(model.retain - retrained.retain)) * (1 - abs(model.held_out - retrained.held_out))


def mia_efficacy(forget: Array, retain: Array, held_out: Array, seed: int) -> float:
    """Share of forgotten records that an attack on this model calls non-members.

    The attack of the RUM and SalUn code: an RBF support vector machine (C = 3, gamma auto) on the probability of the
    true label [records], retained = members against held-out = non-members, as many of each, drawn at random (their
    code takes the first). One-sided and uncalibrated: compare it with a retrain's, not with 1.
    """
    from sklearn.svm import SVC

    size = min(len(retain), len(held_out), SAMPLE)
    draw = np.random.default_rng(seed)
    members, others = draw.choice(retain, size, replace=False), draw.choice(held_out, size, replace=False)
    features = np.concatenate([members, others]).reshape(-1, 1)
    labels = np.repeat([1, 0], size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = SVC(C=3.0, gamma="auto", kernel="rbf").fit(features, labels)
    return float(np.mean(attack.predict(forget.reshape(-1, 1)) == 0))
