"""Pairs of canaries, guesses from score tables, and the check on canaries that stay."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.verdict import disagreements
from tests.workers import factories
from tests.workers.synthetic import World, classifier_table, without
from workers.lineage.canaries import CanarySet, companions, plant_canaries, spending
from workers.lineage.opposites import opposites
from workers.planning.assessment import Facts, assess

KEY = b"k" * 32
CANARIES = {"canary": 80, "canary_out": 400, "canary_kept": 300}


@pytest.fixture(scope="module")
def planted() -> CanarySet:
    data, _ = factories.digits(1500, 0, noise=0.0)
    found = plant_canaries(data, 0.005, KEY)
    assert found is not None
    return found


def test_each_planted_canary_has_one_opposite_of_its_kind(planted: CanarySet) -> None:
    pairs = opposites(planted)
    kinds = dict(zip(planted.records.ids.tolist(), planted.kinds.tolist(), strict=True))
    assert set(pairs) == set(planted.inside.ids.tolist())
    assert len(set(pairs.values())) == len(pairs)
    assert set(pairs.values()) <= set(planted.outside.ids.tolist())
    assert all(kinds[ours] == kinds[theirs] for ours, theirs in pairs.items())


def test_pairs_are_the_same_for_every_version_and_drawn_by_the_seal(planted: CanarySet) -> None:
    later = spending(planted, companions(planted, 40))
    assert opposites(later) == opposites(planted)
    assert opposites(replace(planted, nonce=b"n" * 32)) != opposites(planted)


def tables(leaks: Mapping[str, Mapping[str, float]], seed: int = 0) -> dict[str, pa.Table]:
    """A clean candidate with canaries, whose scores are shifted by model and set."""
    made = World(forget=120, held_out=900, seed=seed).tables(original=2.0, candidate=0.0)
    draw = np.random.default_rng(seed + 1)
    common = {part: draw.normal(size=size) for part, size in CANARIES.items()}
    for model, table in made.items():
        parts = [
            classifier_table(part, 0.9 * common[part] + 0.4 * draw.normal(size=size) + leaks[model].get(part, 0.0),
                             np.arange(size))
            for part, size in CANARIES.items()
        ]  # fmt: skip
        made[model] = pa.concat_tables([table, *parts])
    return made


def names(part: str) -> list[str]:
    return [f"{part}-{at:05d}" for at in range(CANARIES[part])]


def leaving(table: pa.Table) -> pa.Table:
    """A table without the canaries that stay."""
    return without(table, "canary_kept")


FACTS = Facts(
    canary_kinds={name: "natural" for part in CANARIES for name in names(part)},
    canary_opposites=dict(zip(names("canary"), names("canary_out"), strict=False)),
)
KNOWN = {"canary": 3.0, "canary_kept": 1.0}


def judged(made: dict[str, pa.Table], facts: Facts = FACTS) -> Evaluation:
    found = assess(made, "image-classification", Policy(), facts=facts)
    assert disagreements(found, Policy().verification) == []
    return found


def test_guesses_are_counted_from_the_tables() -> None:
    made = tables({"original": KNOWN, "candidate": {"canary_kept": 1.0}})
    found = judged(made).metrics
    scores = dict(
        zip(made["candidate"]["record_id"].to_pylist(), made["candidate"]["confidence"].to_pylist(), strict=True)
    )
    by_hand = sum(scores[ours] > scores[theirs] for ours, theirs in FACTS.canary_opposites.items())
    assert (found["canary_guesses"], found["canary_guesses_right"]) == (80, by_hand)
    assert found["canary_guesses_right_do_nothing"] > 75
    # The order of the rows says nothing.
    turned = {name: table.take(list(range(table.num_rows))[::-1]) for name, table in made.items()}
    assert judged(turned).metrics["canary_guesses_right"] == by_hand


def test_a_canary_whose_opposite_was_not_scored_is_not_guessed() -> None:
    made = tables({"original": KNOWN, "candidate": KNOWN})
    some = dict(list(FACTS.canary_opposites.items())[:10]) | {"canary-00070": "elsewhere"}
    assert judged(made, replace(FACTS, canary_opposites=some)).metrics["canary_guesses"] == 10
    assert "canary_guesses" not in judged(made, replace(FACTS, canary_opposites={})).metrics
    plain = World(forget=120, held_out=900).tables(original=2.0, candidate=0.0)
    assert not [name for name in judged(plain).metrics if "canary" in name or "harm" in name]


@pytest.mark.parametrize(("shift", "said"), [(1.0, "no more than before"), (1.6, "more than before")])
def test_harm_to_those_that_stay_is_told_and_decides_nothing(shift: float, said: str) -> None:
    made = tables({"original": KNOWN, "candidate": {"canary_kept": shift}}, seed=4)
    found, plain = judged(made), judged({name: leaving(table) for name, table in made.items()})
    check = found.check("retained_harm")
    assert check is not None
    assert (check.role, check.verdict, check.n, check.m, check.margin) == ("diagnostic", "info", 300, 400, 0.03)
    assert f"given away {said}" in (check.reason or "")
    assert check.estimate == found.metrics["retained_harm"]
    assert (found.verdict, found.grade, found.reason) == (plain.verdict, plain.grade, plain.reason)


def test_where_no_canary_stays_the_check_says_so() -> None:
    made = {name: leaving(table) for name, table in tables({"original": KNOWN, "candidate": {}}).items()}
    check = judged(made).check("retained_harm")
    assert check is not None
    assert (check.estimate, check.reason) == (None, "not run: no planted canary is left that was not deleted")
    assert judged(made).metrics["canary_guesses"] == 80
