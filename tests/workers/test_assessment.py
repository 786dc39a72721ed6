"""The pure core of the gate on made-up score tables: what must fail, what must never pass, what cannot be judged."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Unevaluable
from service.verification.policy import Policy
from service.verification.schema import Evaluation, Traces
from service.verification.verdict import disagreements
from tests.workers.synthetic import World, classifier_table, language_table, replace_column, without
from workers.metrics.blind_baseline import Features
from workers.metrics.difficulty_baseline import Difficulty
from workers.planning.assessment import Facts, assess
from workers.planning.checks import BlindFeatures
from workers.planning.provenance import Provenance

TASK = "image-classification"
POLICY = Policy()
EXACT = Provenance(claimed=True, holds=True, reason="retrain: none of the forgotten records was in a batch")


def judged(tables: dict[str, pa.Table], task: str = TASK, **options: Any) -> Evaluation:
    found = assess(tables, task, POLICY, **options)
    assert disagreements(found, POLICY.verification) == []
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    return found


def verdict_of(found: Evaluation, name: str) -> str:
    check = found.check(name)
    assert check is not None
    return check.verdict


@pytest.mark.parametrize(("size", "people"), [(40, 1), (120, 4), (800, 4)])
def test_a_clean_candidate_passes_with_grade_c_and_a_leaking_one_fails(size: int, people: int) -> None:
    world = World(forget=size, held_out=1200, per_subject=people, rho=0.1, seed=1)
    tables = world.tables(original=2.0, clean=0.0, leaking=1.5, over=-1.5)
    # The training was as sure of the forgotten records as of others.
    people = np.arange(size) // people, 10**6 + np.arange(400)
    draw = np.random.default_rng(0)
    facts = Facts(difficulty=Difficulty(draw.normal(size=size), people[0], draw.normal(size=400), people[1]))
    outcomes = {
        name: judged({"original": tables["original"], "candidate": tables[name]}, facts=facts)
        for name in ("clean", "leaking", "over")
    }
    assert [(found.verdict, found.grade) for found in outcomes.values()] == [
        ("pass", "C"),
        ("fail", None),
        ("fail", None),
    ]
    assert "over-forgotten" in outcomes["over"].reason
    unknown = judged({"original": tables["original"], "candidate": tables["over"]})
    assert (unknown.verdict, verdict_of(unknown, "difficulty_baseline")) == ("inconclusive", "info")
    assert all(found.basis == "measurement" for found in outcomes.values())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    leak=st.floats(-3, 3),
    size=st.sampled_from([10, 33, 60, 150, 300]),
    people=st.sampled_from([1, 3, 10]),
    rho=st.floats(0, 0.9),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_the_untouched_model_never_passes(
    seed: int, leak: float, size: int, people: int, rho: float, alpha: float
) -> None:
    world = World(forget=size, held_out=300, per_subject=people, rho=rho, seed=seed)
    table = world.tables(original=leak)["original"]
    for differ in (True, False):
        found = judged({"original": table, "candidate": table}, alpha=alpha, facts=Facts(files_differ=differ))
        assert found.verdict == "fail"
        assert verdict_of(found, "distinct") == "fail"
        # Without the check on identity the membership check alone keeps it from passing.
        assert verdict_of(found, "membership_auc") != "pass"
    also = judged({"original": table, "candidate": table}, facts=Facts(files_differ=False, provenance=EXACT))
    assert (also.verdict, also.grade) == ("fail", None)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), leak=st.floats(-3, 3), noise=st.sampled_from([1e-6, 1e-3, 0.01]))
def test_a_hardly_touched_model_never_passes(seed: int, leak: float, noise: float) -> None:
    table = World(forget=150, held_out=400, seed=seed).tables(original=leak)["original"]
    scores = table["confidence"].to_numpy() + noise * np.random.default_rng(seed).normal(size=table.num_rows)
    candidate = replace_column(table, "confidence", scores)
    assert judged({"original": table, "candidate": candidate}).verdict != "pass"


def test_nothing_detectable_before_is_inconclusive_and_never_credit() -> None:
    found = judged(World(forget=400, held_out=2000).tables(original=0.0, candidate=0.0))
    assert found.verdict == "inconclusive"
    assert "nothing detectable before or after" in found.reason
    assert any("in the original either" in sentence for sentence in found.limits)


def blind(world: World, shift: float) -> BlindFeatures:
    random = np.random.default_rng(5)
    sets = {part: random.normal(shift * (part == "forget"), 1, (size, 4)) for part, size in world.sizes.items()}
    return BlindFeatures(
        Features(sets["forget"]), np.arange(world.forget), Features(sets["held_out"]), np.arange(world.held_out)
    )


@pytest.mark.parametrize("leak", [0.0, 2.0])
def test_a_shifted_held_out_set_is_inconclusive_never_fail(leak: float) -> None:
    world = World(forget=150, held_out=600)
    tables = world.tables(original=2.0, candidate=leak)
    found = judged(tables, blind=blind(world, 0.5))
    assert (found.verdict, verdict_of(found, "blind_baseline")) == ("inconclusive", "inconclusive")
    alike = judged(tables, blind=blind(world, 0.0))
    assert (alike.verdict, verdict_of(alike, "blind_baseline")) == ("fail" if leak else "pass", "pass")


@pytest.mark.parametrize(
    ("stays", "known", "expected"),
    [
        (False, None, "pass"),
        (True, None, "fail"),
        # No scored record has the class, and a retained one that was not scored does, or does not.
        (False, frozenset(), "fail"),
        (False, frozenset({9}), "pass"),
    ],
)
def test_a_class_that_was_forgotten_as_a_whole_is_not_asked_of_the_candidate(
    stays: bool, known: frozenset[int] | None, expected: str
) -> None:
    """A model retrained without a class knows none of it; the same loss on a class that others still have is harm."""
    world = World(forget=120, held_out=1200)
    tables = world.tables(original=2.0, candidate=0.0)
    sets = np.array(tables["original"]["set"].to_pylist())
    rows = np.arange(len(sets))
    labels = np.where(sets == "forget", 9, rows % 10 if stays else rows % 9)
    labels = np.where((sets == "held_out") & (rows % 10 == 0), 9, labels)
    lost = tables["candidate"]["correct"].to_numpy(zero_copy_only=False) & ~((sets == "held_out") & (labels == 9))
    tables["candidate"] = replace_column(tables["candidate"], "correct", lost)
    labelled = {name: table.append_column("label", pa.array(labels)) for name, table in tables.items()}
    utility = judged(labelled, facts=Facts(forgotten_classes=known)).check("utility")
    assert utility is not None
    assert utility.verdict == expected
    assert utility.n == (1200 if expected == "fail" else 1080)


def test_a_constant_margin_model_fails_although_its_auc_is_one_half() -> None:
    world = World(forget=400, held_out=1200)
    tables = world.tables(original=2.0, candidate=0.0)
    right = tables["original"]["correct"].to_numpy(zero_copy_only=False)
    constant = replace_column(tables["candidate"], "confidence", np.full(len(right), 3.0))
    found = judged({**tables, "candidate": constant})
    assert (found.verdict, verdict_of(found, "sanity")) == ("fail", "fail")
    membership = found.check("membership_auc")
    assert membership is not None
    assert membership.ci is not None
    assert membership.ci[1] - membership.ci[0] > 0.02


def test_two_values_that_only_tell_right_from_wrong_are_a_constant_margin() -> None:
    """With three right answers in five all scores range widely, and right and wrong ones by themselves do not."""
    world = World(forget=400, held_out=1200)
    tables = world.tables(original=2.0, candidate=0.0)
    rows = np.arange(tables["candidate"].num_rows)
    for name in ("original", "candidate"):
        tables[name] = replace_column(tables[name], "correct", rows % 5 < 3)
    margins = np.where(rows % 5 < 3, 2.0, -2.0) + 1e-6 * np.cos(rows)
    found = judged({**tables, "candidate": replace_column(tables["candidate"], "confidence", margins)})
    assert (found.verdict, verdict_of(found, "sanity")) == ("fail", "fail")
    assert verdict_of(judged(tables), "sanity") == "pass"


def test_a_collapsed_model_fails_on_utility() -> None:
    tables = World(forget=400, held_out=1200).tables(original=2.0, candidate=0.0)
    random = np.random.default_rng(0)
    collapsed = replace_column(tables["candidate"], "correct", random.random(tables["candidate"].num_rows) < 0.1)
    found = judged({**tables, "candidate": collapsed})
    assert (found.verdict, verdict_of(found, "utility")) == ("fail", "fail")
    small = World(forget=120, held_out=200).tables(original=2.0, candidate=0.0)
    lost = replace_column(small["candidate"], "correct", random.random(small["candidate"].num_rows) < 0.1)
    assert judged({**small, "candidate": lost}).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ({"forget": 32}, "32 forgotten records are too few"),
        ({"forget": 90, "per_subject": 10}, "9 people"),
        ({"forget": 90, "per_subject": 90}, "1 people"),
        ({"held_out": 0}, "no held-out records"),
    ],
)
def test_what_cannot_be_tested_is_inconclusive_and_says_why(sizes: dict[str, int], why: str) -> None:
    found = judged(World(**{"forget": 120, "held_out": 900, **sizes}).tables(original=3.0, candidate=3.0))
    assert verdict_of(found, "membership_auc") == "inconclusive"
    check = found.check("membership_auc")
    assert check is not None
    assert why in (check.reason or "")
    assert found.verdict != "pass"


def test_an_exact_method_passes_by_procedure_whatever_the_attacks_say() -> None:
    tables = World(forget=120, held_out=900).tables(original=3.0, candidate=3.0)
    facts = Facts(provenance=EXACT)
    found = judged(tables, facts=facts)
    assert (found.verdict, found.grade, found.basis) == ("pass", "A", "procedure")
    membership = found.check("membership_auc")
    assert membership is not None
    assert (membership.role, membership.verdict) == ("diagnostic", "fail")
    ignored = judged(tables, facts=facts, ignore_record=True)
    assert (ignored.verdict, ignored.basis) == ("fail", "measurement")
    assert verdict_of(ignored, "provenance") == "info"


def test_one_person_and_no_held_out_set_pass_by_procedure() -> None:
    tables = World(forget=5, held_out=0, per_subject=5).tables(original=3.0, candidate=0.0)
    found = judged(tables, facts=Facts(provenance=EXACT))
    assert (found.verdict, found.grade) == ("pass", "A")
    assert found.metrics["forgetting_rate_mia"] is None


def test_a_claim_that_does_not_hold_is_printed_and_judged_by_measurement() -> None:
    tables = World(forget=120, held_out=900).tables(original=3.0, candidate=0.0)
    found = judged(tables, facts=Facts(provenance=Provenance(True, False, "the weights are not those described")))
    assert (found.basis, verdict_of(found, "provenance"), found.grade) == ("measurement", "fail", "C")


@pytest.mark.parametrize("column", ["confidence", "loss"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_never_judged(column: str, value: float) -> None:
    tables = World().tables(original=1.0, candidate=0.0)
    values = tables["candidate"][column].to_numpy().copy()
    values[7] = value
    broken = replace_column(tables["candidate"], column, values)
    with pytest.raises(Unevaluable, match=f"1 of 120 {column} scores of the candidate model on the forget set"):
        judged({**tables, "candidate": broken})


def test_other_records_missing_sets_and_doubles_are_refused() -> None:
    tables = World().tables(original=1.0, candidate=0.0)
    renamed = [f"x{name}" for name in tables["candidate"]["record_id"].to_pylist()]
    for broken, why in (
        (replace_column(tables["candidate"], "record_id", renamed), "same records"),
        (tables["candidate"].slice(0, 500), "same records"),
        (without(tables["candidate"], "held_out"), "same records"),
        (pa.concat_tables([tables["candidate"], tables["candidate"].slice(0, 1)]), "occurs twice"),
        (tables["candidate"].drop_columns(["confidence"]), "no column confidence"),
    ):
        with pytest.raises(Unevaluable, match=why):
            judged({**tables, "candidate": broken})
    with pytest.raises(Unevaluable, match="candidate"):
        judged({"original": tables["original"]})
    for part in ("forget", "retain"):
        with pytest.raises(Unevaluable, match=f"the {part} set is empty"):
            judged({name: without(table, part) for name, table in tables.items()})


def test_the_order_of_records_does_not_matter() -> None:
    tables = World().tables(original=1.5, candidate=0.0)
    order = np.random.default_rng(0).permutation(tables["candidate"].num_rows)
    shuffled = {**tables, "candidate": tables["candidate"].take(order)}
    assert judged(shuffled) == judged(tables)


def test_metrics_stand_beside_doing_nothing_and_retrained_models() -> None:
    world = World(forget=400, held_out=1200)
    tables = world.tables(original=1.5, candidate=0.1, retrained_1=0.0, retrained_2=0.0, retrained_10=0.0)
    metrics = judged(tables).metrics
    assert metrics["membership_auc_do_nothing"] > 0.8
    assert len(metrics["membership_auc_retrained"]) == 3
    assert metrics["forgetting_rate_mia_do_nothing"] == 0
    assert metrics["forgetting_rate_mia"] == pytest.approx(np.mean(metrics["forgetting_rate_mia_retrained"]), abs=0.2)
    assert metrics["tow_do_nothing"] < metrics["tow"] <= 1
    assert metrics["tow_mia_do_nothing"] < metrics["tow_mia_retrain_to_retrain"] <= 1
    assert (
        metrics["klom_gaussian"] < 3 * metrics["klom_gaussian_retrain_to_retrain"] < metrics["klom_gaussian_do_nothing"]
    )
    single = judged({name: tables[name] for name in ("original", "candidate", "retrained-1")}).metrics
    assert single["tow"] is not None
    assert single["tow_retrain_to_retrain"] is None
    assert single["klom_gaussian"] is None
    assert "tow" not in judged({name: tables[name] for name in ("original", "candidate")}).metrics


def test_checks_that_need_references_are_listed_as_not_run() -> None:
    found = judged(World().tables(original=1.0, candidate=0.0))
    for name in ("reference_auc", "reference_control", "per_record"):
        check = found.check(name)
        assert check is not None
        assert (check.role, check.verdict, check.reason) == ("diagnostic", "info", "not run: no references")


@pytest.mark.parametrize(
    ("traces", "why"),
    [
        (Traces(record=False), "since the model was trained without companion canaries"),
        (Traces(record=True, log="kept", canaries=73), "since none of the 73 companion canaries"),
        (None, "since no companion canaries were looked for"),
    ],
)
def test_without_canaries_a_measured_pass_is_c_and_says_why_and_an_exact_one_stays_a(
    traces: Traces | None, why: str
) -> None:
    tables = World(forget=400, held_out=1200).tables(original=2.0, candidate=0.0)
    measured = judged(tables, facts=Facts(traces=traces))
    assert (measured.verdict, measured.grade, measured.traces) == ("pass", "C", traces)
    assert why in measured.reason
    canaries = measured.check("companion_canaries")
    assert canaries is not None
    assert (canaries.role, canaries.verdict, (canaries.reason or "")[:8]) == ("diagnostic", "info", "not run:")
    exact = judged(tables, facts=Facts(traces=traces, provenance=EXACT))
    assert (exact.verdict, exact.grade) == ("pass", "A")
    assert "grade C" not in exact.reason


@pytest.mark.parametrize("count", [None, 0, 7])
def test_retained_copies_are_counted_and_explained(count: int | None) -> None:
    found = judged(World().tables(original=1.0, candidate=0.0), facts=Facts(near_duplicates=count))
    assert found.records.near_duplicates == count
    said = {None: "were not searched for", 0: "No retained record is an exact copy", 7: "7 retained records are exact"}
    assert sum(said[count] in line for line in found.limits) == 1


def test_the_design_is_fixed_before_the_candidate_is_seen() -> None:
    tables = World(forget=150, per_subject=5, rho=0.3).tables(original=1.5, clean=0.0, leaking=3.0)
    first, second = (
        judged({"original": tables["original"], "candidate": tables[name]}) for name in ("clean", "leaking")
    )
    for name in ("membership_auc", "utility"):
        one, other = first.check(name), second.check(name)
        assert one is not None
        assert other is not None
        assert one.power_at_zero == other.power_at_zero is not None
        assert one.smallest_detectable == other.smallest_detectable is not None


def language(leak: float, change: float = 0.0, scale: float = 1.0, seed: int = 0) -> pa.Table:
    """Losses per token around 2 with `leak` less on forgotten records and 1.5 on retained ones; `scale` refines the
    tokens."""
    random = np.random.default_rng(7)
    own = np.random.default_rng(seed)
    parts = []
    for part, size, shift in (("forget", 150, -leak), ("retain", 200, -1.5), ("held_out", 900, 0.0)):
        losses = 2.5 + shift + change + random.normal(0, 0.4, size) + own.normal(0, 0.1, size)
        parts.append(
            language_table(part, np.maximum(losses, 0.01) / scale, np.arange(size) // 3, tokens=int(20 * scale))
        )
    return pa.concat_tables(parts)


def test_a_loss_of_two_values_hides_behind_no_spread_of_its_own() -> None:
    """Every text above the median as familiar as any other, and every one below: what a retrain says is gone."""
    original, clean = language(1.5), language(0.0, seed=1)
    nll = clean["nll"].to_numpy()
    two = np.where(nll > np.median(nll), *np.quantile(nll, [0.75, 0.25])) + 1e-6 * np.cos(np.arange(len(nll)))
    levelled = replace_column(clean, "nll", two)
    found = judged({"original": original, "candidate": levelled}, "causal-lm")
    assert (found.verdict, verdict_of(found, "sanity")) == ("fail", "fail")
    assert verdict_of(judged({"original": original, "candidate": clean}, "causal-lm"), "sanity") == "pass"


def test_a_language_model_is_judged_by_its_loss_and_perplexity() -> None:
    original = language(1.5)
    assert judged({"original": original, "candidate": language(0.0, seed=1)}, "causal-lm").verdict == "pass"
    assert judged({"original": original, "candidate": language(1.4, seed=1)}, "causal-lm").verdict == "fail"
    worse = judged({"original": original, "candidate": language(0.0, change=0.3, seed=1)}, "causal-lm")
    assert (worse.verdict, verdict_of(worse, "utility")) == ("fail", "fail")
    utility = worse.check("utility")
    assert utility is not None
    assert utility.estimate == pytest.approx(np.exp(0.3), rel=0.02)
    assert worse.models.candidate.held_out is not None
    assert worse.models.candidate.held_out.perplexity == pytest.approx(np.exp(2.8), rel=0.05)


def test_models_with_other_tokenizers_are_compared_by_the_byte() -> None:
    """Twice as many tokens at half the loss each: the same probability for every text."""
    tables = {"original": language(1.5), "candidate": language(0.0, scale=2.0, seed=1)}
    tables["candidate"] = replace_column(
        tables["candidate"], "utf8_bytes", tables["original"]["utf8_bytes"].to_pylist()
    )
    by_byte = judged(tables, "causal-lm", facts=Facts(per_byte=True))
    assert (by_byte.verdict, by_byte.unit) == ("pass", "byte")
    by_token = judged(tables, "causal-lm")
    assert verdict_of(by_token, "utility") == "pass"  # a finer tokenizer looks better: why bytes are used
    same, finer = by_byte.check("utility"), by_token.check("utility")
    assert same is not None
    assert finer is not None
    assert same.estimate == pytest.approx(1.0, abs=0.05)
    assert (finer.estimate or 1) < 0.5


def test_sampled_retained_records_are_said_so() -> None:
    found = judged(
        World().tables(original=1.0, candidate=0.0), facts=Facts(retain_records=9000, forward_passes={"a": 3})
    )
    assert (found.records.retain, found.records.retain_scored) == (9000, 200)
    assert any("200 of 9000" in sentence for sentence in found.limits)
    assert found.forward_passes == {"a": 3}


def test_a_retrain_on_random_forget_sets_is_never_failed_by_measurement() -> None:
    verdicts = [
        judged(
            World(forget=90, held_out=500, per_subject=5, rho=0.3, seed=seed).tables(original=1.5, candidate=0.0)
        ).verdict
        for seed in range(40)
    ]
    assert "fail" not in verdicts
    assert "pass" in verdicts


def test_a_table_of_one_score_value_is_handled() -> None:
    constant = pa.concat_tables(
        [
            classifier_table(part, np.ones(size), np.arange(size))
            for part, size in (("forget", 40), ("retain", 50), ("held_out", 400))
        ]
    )
    varied = World(forget=40, retain=50, held_out=400).tables(candidate=0.0)["candidate"]
    assert judged({"original": constant, "candidate": constant}).verdict == "fail"
    # The original cannot have been attacked: no credit.
    assert judged({"original": constant, "candidate": varied}).verdict == "inconclusive"
