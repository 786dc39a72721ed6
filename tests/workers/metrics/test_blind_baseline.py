"""Blind baseline: like sets at 0.5, shifted ones found, and no recognising of people across folds."""

import time

import numpy as np
import pytest

from service.verification.statistics import Auc, NotMeasurable
from tests.workers.factories import conversations, digits, png
from workers.metrics.blind_baseline import Features, blind_baseline, extract


def measured(forget, held_out, seed: int = 0, **changed) -> Auc:
    columns = forget.take(range(len(forget))) | changed
    others = held_out.take(range(len(held_out)))
    found = blind_baseline(extract(columns), extract(others), forget.subjects, held_out.subjects, seed)
    assert isinstance(found, Auc)
    return found


def test_images_of_the_same_kind_are_not_told_apart() -> None:
    train, held_out = digits(600, 400)
    auc = measured(train.subset(range(150)), held_out)
    assert auc.interval(0.95)[0] <= 0.55
    assert auc.auc == pytest.approx(0.5, abs=3 * auc.se)
    assert (auc.n, auc.m, auc.clusters) == (150, 400, (15, 40))


def test_brighter_images_are() -> None:
    train, held_out = digits(600, 400)
    forget = train.subset(range(150))
    random = np.random.default_rng(0)
    brighter = [png(random.uniform(0, 160, (8, 8)) + 60) for _ in range(150)]
    assert measured(forget, held_out, image=brighter).interval(0.95)[0] > 0.55


def test_a_class_that_is_forgotten_whole_is() -> None:
    train, held_out = digits(600, 400)
    assert measured(train.subset(range(150)), held_out, label=[3] * 150).interval(0.95)[0] > 0.55


def test_texts_of_the_same_kind_are_not_told_apart_although_names_differ() -> None:
    lows = []
    for seed in range(3):
        train, held_out = conversations(60, 60, seed=seed)
        lows.append(measured(train.subset(range(100)), held_out, seed).interval(0.95)[0])
    assert max(lows) <= 0.55


def test_texts_with_another_opening_are() -> None:
    train, held_out = conversations(60, 60)
    forget = train.subset(range(100))
    polite = ["Hello, please: " + prompt for prompt in forget.columns["prompt"]]
    assert measured(forget, held_out, prompt=polite).interval(0.95)[0] > 0.55


def test_recognising_a_person_is_no_evidence() -> None:
    """Each person has a word of its own: without grouped folds a classifier would know who is in which set."""
    random = np.random.default_rng(0)
    names = ["".join(random.choice(list("abcdefghij"), 6)) for _ in range(40)]
    texts = [f"{name} again" for name in names for _ in range(10)]
    people = np.repeat(np.arange(40), 10)
    features = extract({"text": texts[:200]}), extract({"text": texts[200:]})
    found = blind_baseline(*features, people[:200], people[200:], 0)
    assert isinstance(found, Auc)
    assert found.interval(0.95)[0] <= 0.55


def test_few_people_cannot_be_split_into_folds() -> None:
    features = extract({"text": ["a b c"] * 20, "label": [0, 1] * 10})
    assert isinstance(blind_baseline(features, features, np.zeros(20), np.arange(20), 0), NotMeasurable)


def test_texts_without_a_term_do_not_break_it() -> None:
    features = extract({"text": ["", "!"] * 20})
    found = blind_baseline(features, features, np.arange(40), np.arange(40), 0)
    assert isinstance(found, Auc)
    assert found.auc == pytest.approx(0.5, abs=0.2)


def test_people_of_one_record_each_are_folded_without_comparing_them() -> None:
    """Folds are others than grouped ones, and the figure lies within its interval: like sets, and a shifted one."""
    draw = np.random.default_rng(3)
    for shift in (0.0, 0.8):
        forget, held_out = (Features(draw.normal(at, 1, (size, 3))) for at, size in ((shift, 300), (0.0, 900)))
        started = [time.process_time()]
        found = []
        for each in (2, 1):
            people = np.arange(300) // each, np.arange(300, 1200) // each
            found.append(blind_baseline(forget, held_out, *people, 0))
            started.append(time.process_time())
        grouped, alone = found
        assert isinstance(grouped, Auc)
        assert isinstance(alone, Auc)
        assert (alone.n, alone.m, alone.clusters) == (300, 900, (300, 900))
        low, high = grouped.interval(0.95)
        assert low < alone.auc < high
        assert (alone.interval(0.95)[0] > 0.55) == (shift > 0)
        assert started[2] - started[1] < (started[1] - started[0]) / 2
