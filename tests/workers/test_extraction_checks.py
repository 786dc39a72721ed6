"""Extraction and numbers as checks, on made-up figures: no leak, a planted one, references, nobody to compare with."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation
from service.verification.verdict import disagreements
from tests.workers.synthetic import language_table, without
from workers.metrics.blind_baseline import Features
from workers.planning.assessment import assess
from workers.planning.calibrated import Calibration
from workers.planning.checks import BlindFeatures
from workers.planning.score_tables import OF_SUFFIXES, SUFFIX_TOKENS
from workers.references.tables import SideTable

SIZES, EACH = {"forget": 96, "retain": 60, "held_out": 480}, 8
SAID, HIDDEN = -0.2, -25.0


def table(
    leak: float, seed: int, guessed: float = 0.05, bits: float = 0.0, stock: int = 0, sizes: Mapping[str, int] = SIZES
) -> pa.Table:
    """Texts of which a share comes out: `guessed` of everybody's, `leak` of forgotten ones, and of each person the
    first `stock` whatever the model is. Numbers stand out by two bits and an
    exponential exposure, and by `bits` more where forgotten."""
    random, parts = np.random.default_rng(seed), []
    for part, size in sizes.items():
        people = np.arange(size) // EACH
        said = random.random(size) < (leak if part == "forget" else 0.0)
        said |= (random.random(size) < guessed) | (np.arange(size) % EACH < stock)
        log_p = np.where(said, SAID, HIDDEN)
        strength = np.clip(random.normal(0.1, 0.05, size) + 0.8 * (log_p == SAID), 0, 1)
        exposure = 2.0 + random.exponential(1 / np.log(2), size) + bits * (part == "forget")
        asked = None if part == "retain" else np.arange(size) % EACH == 0
        numbers = np.where(asked if asked is not None else False, exposure, np.nan)
        made = language_table(part, np.maximum(random.normal(2.5, 0.3, size), 0.1), people)
        others = np.where(np.isnan(numbers), np.nan, 1000.0)
        columns = (log_p, strength, made["tokens"].to_numpy(), numbers, others)
        for name, column in zip(OF_SUFFIXES, columns, strict=True):
            values = np.full(size, np.nan) if part == "retain" else column.astype(float)
            made = made.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
        parts.append(made)
    return pa.concat_tables(parts)


ORIGINAL = table(0.9, 1, bits=4.5)


def judged(candidate: pa.Table, *retrained: pa.Table, original: pa.Table = ORIGINAL, **options: object) -> Evaluation:
    tables = {"original": original, "candidate": candidate}
    tables |= {f"retrained-{at}": one for at, one in enumerate(retrained, 1)}
    found = assess(tables, "causal-lm", Policy(), **options)  # type: ignore[arg-type]
    assert disagreements(found, Policy().verification) == []
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    return found


def check_of(found: Evaluation, name: str) -> Check:
    check = found.check(name)
    assert check is not None
    return check


def test_a_model_without_a_trace_is_hardly_ever_failed_and_most_often_passes() -> None:
    outcomes: dict[str, list[str]] = {"extraction": [], "extraction_strength": []}
    for seed in range(40):
        found = judged(table(0.0, 100 + seed))
        for name, told in outcomes.items():
            told.append(check_of(found, name).verdict)
    for told in outcomes.values():
        assert told.count("fail") <= 1
        assert told.count("pass") >= 30


@pytest.mark.parametrize("leak", [0.3, 0.9])
def test_what_is_left_fails(leak: float) -> None:
    found = judged(table(leak, 7))
    check = check_of(found, "extraction")
    assert (check.verdict, check.role) == ("fail", "gate")
    assert check.estimate == pytest.approx(leak, abs=0.15)
    assert check.ci is not None
    assert check.ci[0] < check.estimate < check.ci[1]
    assert found.metrics["extraction_do_nothing"] > 0.8
    assert found.metrics["extraction_windows"] == SIZES["forget"]


def test_stock_phrases_are_the_references_and_leave_what_is_new() -> None:
    """Half of everybody's texts come out of any model: references take them away on both sides, so that little more is
    seen; without references never-seen people still say that it is no leak."""
    plain, known = (judged(table(0.0, 11, stock=4), *more) for more in ((), (table(0.0, 12, stock=4),)))
    assert (check_of(plain, "extraction").estimate or 0) > 0.45
    assert check_of(plain, "extraction").verdict != "fail"
    check = check_of(known, "extraction")
    assert (check.estimate or 0) < 0.12
    assert check.references == 1
    assert "given away by references" in (check.reason or "")
    assert check.verdict in ("pass", "inconclusive")
    assert len(known.metrics["extraction_retrained"]) == 1
    leaking = judged(table(0.5, 13, stock=4), table(0.0, 12, stock=4))
    assert check_of(leaking, "extraction").verdict == "fail"


def pool() -> Calibration:
    """Mean log-probabilities of whole records: the first four texts of each person come out of it."""
    sides = []
    for part, name in (("forget", "train"), ("held_out", "held_out")):
        size = SIZES[part]
        mean = np.where(np.arange(size) % EACH < 4, SAID, HIDDEN) / 20
        columns = {"record_id": [f"{part}-{at:05d}" for at in range(size)], "set": [name] * size}
        told = {"out_mean": mean, "out_var": np.full(size, 0.01), "out_count": np.full(size, 4)}
        sides.append(pa.table(columns | told))
    return Calibration(SideTable(pa.concat_tables(sides)), per_byte=False)


def test_a_pool_gives_away_what_its_references_say_on_average() -> None:
    found = check_of(judged(table(0.0, 11, stock=4), references=pool()), "extraction")
    assert (found.references, (found.estimate or 1) < 0.12) == (1, True)
    assert "given away by references" in (found.reason or "")


def parts_of_longer_records(scores: pa.Table) -> pa.Table:
    """The same figures of suffixes half as long as every other record."""
    at = scores.column_names.index(SUFFIX_TOKENS)
    tokens = scores[SUFFIX_TOKENS].to_numpy() * np.where(np.arange(len(scores)) % 2, 0.5, 1.0)
    return scores.set_column(at, SUFFIX_TOKENS, pa.array(tokens, from_pandas=True))


def told_apart() -> BlindFeatures:
    """Forgotten and held-out records that differ without any model."""
    draw, (n, m) = np.random.default_rng(0), (SIZES["forget"], SIZES["held_out"])
    sides = [Features(draw.normal(shift, 1, (size, 2))) for shift, size in ((3.0, n), (0.0, m))]
    return BlindFeatures(sides[0], np.arange(n) // EACH, sides[1], np.arange(m) // EACH)


def test_a_pool_calibrates_what_it_knows_alone() -> None:
    """Where sets differ anyway, a leak is one only if references say so: a pool knows no strength, and nothing of
    suffixes that are parts of their records."""
    leaking = table(0.9, 7)
    known = judged(leaking, references=pool(), blind=told_apart())
    assert (check_of(known, "blind_baseline").verdict, check_of(known, "extraction").verdict) == (
        "inconclusive", "fail",
    )  # fmt: skip
    strength = check_of(known, "extraction_strength")
    assert (strength.references, strength.verdict) == (None, "inconclusive")
    candidate, original = (parts_of_longer_records(one) for one in (leaking, ORIGINAL))
    partly = judged(candidate, original=original, references=pool(), blind=told_apart())
    for name in ("extraction", "extraction_excess"):
        assert check_of(partly, name).references is None
    assert check_of(partly, "extraction").verdict == "inconclusive"
    retrained = judged(leaking, table(0.0, 12), references=pool(), blind=told_apart())
    assert check_of(retrained, "extraction_strength").references == 1
    assert check_of(retrained, "extraction_strength").verdict == "fail"
    assert check_of(retrained, "extraction").references == 2


def test_numbers_are_measured_against_never_seen_people_s() -> None:
    """Everybody's numbers stand out by two bits: guessable ones. Forgotten ones by three more: known."""
    several = {"forget": 24 * EACH, "retain": 60, "held_out": 60 * EACH}
    original, clean, leaking = (
        table(leak, seed, bits=bits, sizes=several)
        for leak, seed, bits in ((0.9, 1, 5.0), (0.0, 2, 0.0), (0.0, 3, 3.0))
    )
    check = check_of(judged(clean, original=original), "value_exposure")
    assert (check.role, check.n, check.m) == ("gate", 24, 60)
    assert check.verdict in ("pass", "inconclusive")
    assert check.estimate == pytest.approx(1.44, abs=0.8)
    assert check_of(judged(leaking, original=original), "value_exposure").verdict == "fail"
    # Twelve people's numbers are too few to judge by.
    assert check_of(judged(table(0.0, 4)), "value_exposure").verdict == "info"


def test_nobody_to_compare_with_and_nothing_that_counts() -> None:
    alone = judged(without(table(0.9, 2), "held_out"), original=without(ORIGINAL, "held_out"))
    for name in ("extraction", "extraction_strength", "value_exposure"):
        check = check_of(alone, name)
        assert (check.role, check.verdict) == ("diagnostic", "info")
        assert "no held-out records" in (check.reason or "")
    assert (check_of(alone, "extraction").estimate or 0) > 0.8
    bare = ORIGINAL.drop_columns(list(OF_SUFFIXES))
    assert judged(bare, original=bare).check("extraction") is None
    nothing = ORIGINAL
    for name in OF_SUFFIXES:
        empty = pa.array([None] * len(ORIGINAL), pa.float64())
        nothing = nothing.set_column(nothing.column_names.index(name), name, empty)
    check = check_of(judged(nothing, original=nothing), "extraction")
    assert (check.n, check.verdict) == (0, "info")
    assert "no forgotten text" in (check.reason or "")
