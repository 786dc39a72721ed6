"""The verdict from numbers alone: three outcomes, what takes a pass away, and the error rates that were promised."""

import math
from datetime import date
from typing import Any

import numpy as np
import pytest

from service.verification.policy import Policy
from service.verification.schema import Basis, Check, Evaluation, ModelNumbers, Models, Qualified, Records, SetNumbers
from service.verification.statistics import clustered_auc
from service.verification.verdict import SAMPLED, decide, disagreements, explain, judge

POLICY = Policy().verification
AUC = Check(
    id="membership_auc", role="gate", statistic="AUC", estimate=0.5, alpha=0.05, ci=(0.47, 0.53), ci95=(0.46, 0.54),
    margin=0.05, n=400, m=900, cluster="subject", clusters=(80, 180),
)  # fmt: skip
CONTROL = AUC.model_copy(update={"id": "positive_control", "estimate": 0.8, "ci": (0.77, 0.83), "ci95": (0.76, 0.84)})
BLIND = AUC.model_copy(update={"id": "blind_baseline", "estimate": 0.5, "ci95": (0.46, 0.54)})
UTILITY = Check(
    id="utility", role="gate", statistic="accuracy difference", estimate=-0.002, alpha=0.05, ci=(-0.01, 0.006),
    ci95=(-0.012, 0.008), margin=0.04, n=900, cluster="subject", clusters=(180,),
)  # fmt: skip
FILES = [
    Check(id="provenance", role="diagnostic", statistic="training record", verdict="pass"),
    Check(id="distinct", role="gate", statistic="weights", verdict="pass"),
    Check(id="sanity", role="gate", statistic="spread", estimate=1.0, verdict="pass"),
]


def outcome(basis: Basis = "measurement", **changes: Any) -> tuple[str, str | None, dict[str, Check]]:
    """(verdict, grade, checks by id) after changing some of a passing set; a change of None drops the check."""
    checks = []
    for check in [*FILES, AUC, CONTROL, BLIND, UTILITY]:
        change = changes.get(check.id, {})
        if change is not None:
            checks.append(check.model_copy(update=change))
    judged = judge(checks, basis, POLICY)
    verdict, grade = decide(judged, basis)
    assert explain(judged, basis)
    return verdict, grade, {check.id: check for check in judged}


def test_a_measured_pass_is_grade_c_even_at_the_narrow_margin() -> None:
    assert outcome()[:2] == ("pass", "C")


@pytest.mark.parametrize(
    ("change", "expected", "why"),
    [
        ({"ci": (0.451, 0.549)}, "pass", None),
        ({"ci": (0.47, 0.55)}, "inconclusive", "over the margin"),
        ({"ci": (0.45, 0.53)}, "inconclusive", "over the margin"),
        ({"ci": (0.56, 0.6), "ci95": (0.55, 0.61)}, "inconclusive", "over the margin"),
        ({"ci": (0.56, 0.6), "ci95": (0.5501, 0.61)}, "fail", "still look like members"),
        ({"ci": (0.3, 0.4), "ci95": (0.29, 0.4499)}, "inconclusive", "or harder by nature"),
        ({"margin": None, "n": 32}, "inconclusive", "32 forgotten records are too few"),
        ({"clusters": (9, 180)}, "inconclusive", "9 people"),
        ({"clusters": (80, 9), "ci95": (0.8, 0.9)}, "inconclusive", "9 people"),
        ({"estimate": None, "ci": None, "ci95": None, "reason": "no held-out records"}, "inconclusive", "no held-out"),
    ],
)
def test_three_outcomes_of_the_membership_auc(change: dict[str, Any], expected: str, why: str | None) -> None:
    verdict, grade, checks = outcome(membership_auc=change)
    assert (verdict, checks["membership_auc"].verdict) == (expected, expected)
    assert grade == ("C" if expected == "pass" else None)
    assert why is None or why in (checks["membership_auc"].reason or "")


EASY = BLIND.model_copy(update={"id": "difficulty_baseline", "estimate": 0.5, "ci95": (0.46, 0.54)})


@pytest.mark.parametrize(
    ("easy", "change", "expected"),
    [
        ({}, {}, "pass"),
        ({}, {"ci95": (0.29, 0.4499)}, "fail"),
        ({}, {"ci95": (0.5501, 0.7)}, "fail"),
        # Harder than the others: a true retrain lies low as well, and nothing can be said on either side.
        ({"ci95": (0.1, 0.44)}, {"ci95": (0.05, 0.2)}, "inconclusive"),
        ({"ci95": (0.1, 0.44)}, {}, "inconclusive"),
        ({"ci95": (0.56, 0.7)}, {"ci95": (0.5501, 0.7)}, "inconclusive"),
        ({"ci95": None}, {"ci95": (0.29, 0.4499)}, "inconclusive"),
        ({"statistic": SAMPLED}, {"ci95": (0.29, 0.4499)}, "inconclusive"),
        ({"statistic": SAMPLED}, {"ci95": (0.5501, 0.7)}, "fail"),
        ({"ci95": None}, {"ci95": (0.5501, 0.7)}, "fail"),
    ],
)
def test_how_hard_the_records_were_decides_what_a_population_auc_says(
    easy: dict[str, Any], change: dict[str, Any], expected: str
) -> None:
    auc, baseline = AUC.model_copy(update=change), EASY.model_copy(update=easy)
    checks = judge([*FILES, auc, CONTROL, BLIND, baseline, UTILITY], "measurement", POLICY)
    assert decide(checks, "measurement")[0] == expected


def test_no_power_is_stated_where_the_sets_cannot_be_compared() -> None:
    auc = AUC.model_copy(update={"power_at_zero": 0.97})
    for changed, power in (
        (EASY, 0.97),
        (EASY.model_copy(update={"ci95": None}), 0.97),
        (EASY.model_copy(update={"ci95": (0.1, 0.44)}), 0.0),
        (EASY.model_copy(update={"ci95": (0.56, 0.7)}), 0.0),
        (BLIND.model_copy(update={"ci95": (0.56, 0.7)}), 0.0),
    ):
        checks = {check.id: check for check in (*FILES, auc, CONTROL, BLIND, EASY, UTILITY, changed)}
        found = {check.id: check for check in judge(list(checks.values()), "measurement", POLICY)}
        assert found["membership_auc"].power_at_zero == power
        assert judge(list(found.values()), "measurement", POLICY) == list(found.values())


@pytest.mark.parametrize("control", [{"ci95": (0.54, 0.7)}, {"ci95": (0.3, 0.46)}, {"ci95": None}])
def test_nothing_detectable_before_takes_a_pass_away_but_no_fail(control: dict[str, Any]) -> None:
    verdict, _, checks = outcome(positive_control=control)
    assert verdict == "inconclusive"
    said = "nothing detectable before" if control["ci95"] else "not measured on the original"
    assert said in (checks["membership_auc"].reason or "")
    assert outcome(positive_control=control, membership_auc={"ci95": (0.6, 0.7)})[0] == "fail"


def test_an_over_confident_original_counts_as_detectable_on_either_side() -> None:
    assert outcome(positive_control={"ci95": (0.2, 0.44)})[0] == "pass"


def test_a_separating_blind_baseline_takes_pass_and_fail_away() -> None:
    blind = {"ci95": (0.551, 0.7)}
    for auc in ({}, {"ci95": (0.6, 0.7)}, {"ci95": (0.2, 0.3)}):
        verdict, _, checks = outcome(blind_baseline=blind, membership_auc=auc)
        assert (verdict, checks["blind_baseline"].verdict) == ("inconclusive", "inconclusive")
    assert outcome(blind_baseline={"ci95": (0.55, 0.7)})[0] == "pass"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ci": (-0.0399, 0.1)}, "pass"),
        ({"ci": (-0.05, -0.03), "ci95": (-0.06, -0.02)}, "inconclusive"),
        ({"ci": (-0.08, -0.05), "ci95": (-0.09, -0.041)}, "fail"),
        ({"clusters": (9,)}, "inconclusive"),
    ],
)
def test_utility_is_not_inferior(change: dict[str, Any], expected: str) -> None:
    assert outcome(utility=change)[0] == expected


@pytest.mark.parametrize(
    ("ci", "ci95", "expected"),
    [
        ((0.9, 1.04), (0.9, 1.05), "pass"),
        ((1.0, 1.06), (1.0, 1.07), "inconclusive"),
        ((1.06, 1.1), (1.051, 1.2), "fail"),
    ],
)
def test_a_perplexity_ratio_is_judged_from_the_other_side(ci: Any, ci95: Any, expected: str) -> None:
    ratio = {"statistic": "perplexity ratio", "estimate": 1.0, "margin": 1.05, "n": 1200, "ci": ci, "ci95": ci95}
    assert outcome(utility=ratio)[0] == expected


def test_a_small_held_out_set_does_not_gate_but_a_clear_loss_is_no_pass() -> None:
    verdict, _, checks = outcome(utility={"n": 200, "ci": (-0.06, 0.0)})
    assert (verdict, checks["utility"].role) == ("pass", "diagnostic")
    lost = {"n": 200, "ci": (-0.5, -0.3), "ci95": (-0.55, -0.25)}
    assert outcome(utility=lost)[:2] == ("inconclusive", None)


@pytest.mark.parametrize("change", [{"estimate": 0.05}, {"verdict": "fail", "reason": "weights are not finite"}])
def test_a_constant_or_broken_model_fails(change: dict[str, Any]) -> None:
    assert outcome(sanity=change)[0] == "fail"
    assert outcome("procedure", sanity=change)[0] == "fail"


@pytest.mark.parametrize("basis", ["procedure", "measurement"])
def test_the_originals_weights_never_pass(basis: Basis) -> None:
    assert outcome(basis, distinct={"verdict": "fail"})[:2] == ("fail", None)


def test_by_procedure_attacks_do_not_block() -> None:
    verdict, grade, checks = outcome("procedure", membership_auc={"ci95": (0.7, 0.8)}, utility={"ci": (-0.06, 0.05)})
    assert (verdict, grade) == ("pass", "A")
    assert (checks["membership_auc"].role, checks["membership_auc"].verdict) == ("diagnostic", "fail")
    assert checks["provenance"].role == "gate"


def test_by_procedure_a_lost_utility_fails_and_a_broken_record_does_not_pass() -> None:
    assert outcome("procedure", utility={"ci": (-0.2, -0.1), "ci95": (-0.2, -0.1)})[0] == "fail"
    assert outcome("procedure", provenance={"verdict": "info"})[0] == "inconclusive"
    assert outcome("procedure", provenance=None)[0] == "inconclusive"


REFERENCE = AUC.model_copy(update={"id": "reference_auc", "references": 8, "p_value": 0.8})
REFERENCE_CONTROL = CONTROL.model_copy(update={"id": "reference_control"})


ALONE = Check(id="near_duplicates", role="diagnostic", statistic="retained copies", estimate=0)


def calibrated(basis: Basis, **change: Any) -> tuple[list[Check], Check]:
    """(all checks, the calibrated one) of a passing set with the attack that references calibrate."""
    checks = judge(
        [*FILES, AUC, CONTROL, BLIND, UTILITY, ALONE, REFERENCE.model_copy(update=change), REFERENCE_CONTROL],
        basis,
        POLICY,
    )
    return checks, next(check for check in checks if check.id == "reference_auc")


@pytest.mark.parametrize(
    ("change", "expected", "held"),
    [
        ({}, "pass", False),
        ({"ci": (0.5, 0.56), "ci95": (0.49, 0.57)}, "inconclusive", False),
        ({"estimate": 0.63, "ci95": (0.56, 0.7), "p_value": 0.0011}, "fail", False),
        ({"estimate": 0.63, "ci95": (0.56, 0.7), "p_value": 0.0009}, "fail", True),
        # Below one half: an exact method cannot have over-forgotten.
        ({"estimate": 0.35, "ci95": (0.3, 0.4), "p_value": 1e-9}, "fail", False),
        ({"ci": (0.52, 0.53), "ci95": (0.515, 0.535), "p_value": 1e-9}, "pass", False),
        ({"estimate": None, "ci": None, "ci95": None, "verdict": "info", "reason": "not run"}, "info", False),
    ],
)
@pytest.mark.parametrize("basis", ["procedure", "measurement"])
def test_the_calibrated_attack_takes_the_place_of_the_other_and_holds_an_exact_candidate(
    basis: Basis, change: dict[str, Any], expected: str, held: bool
) -> None:
    checks, found = calibrated(basis, **change)
    population = next(check for check in checks if check.id == "membership_auc")
    gates = basis == "measurement" and expected != "info"
    assert (found.role, found.verdict) == ("gate" if gates else "diagnostic", expected)
    assert population.role == ("gate" if basis == "measurement" and not gates else "diagnostic")
    assert ("a person should look" in (found.reason or "")) == held
    if basis == "procedure":
        assert decide(checks, basis)[0] == ("inconclusive" if held else "pass")
        # Copies that stay explain it, and where nobody looked for copies they may.
        for count in (1, None):
            copies = ALONE.model_copy(update={"estimate": count})
            others = [copies if check.id == "near_duplicates" else check for check in checks]
            assert decide(others, basis)[0] == "pass"
    else:
        assert decide(checks, basis)[0] == ("pass" if expected == "info" else expected)
    assert judge(checks, basis, POLICY) == checks


RECORDS = Check(
    id="per_record", role="diagnostic", statistic="mean z", estimate=0.1, alpha=0.05, ci=(-1.0, 1.2), ci95=(-1.3, 1.5),
    margin=3.0, n=3, m=2000, references=8, p_value=0.6,
)  # fmt: skip
RECORD_CONTROL = RECORDS.model_copy(update={"id": "record_control", "ci": (4.0, 6.0), "ci95": (3.7, 6.3)})
FEW = {"n": 3, "margin": None, "clusters": (3, 500)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "pass"),
        ({"ci": (-1.0, 3.2)}, "inconclusive"),
        ({"ci95": (3.1, 6.0)}, "fail"),
        ({"ci95": (-6.0, -3.1)}, "fail"),
        ({"p_value": 0.009}, "fail"),
        ({"p_value": 0.011}, "pass"),
    ],
)
def test_a_few_records_are_judged_one_by_one_and_printed(change: dict[str, Any], expected: str) -> None:
    few = [check.model_copy(update=FEW) for check in (AUC, CONTROL, REFERENCE, REFERENCE_CONTROL)]
    records = [RECORDS.model_copy(update=change), RECORD_CONTROL]
    checks = judge([*FILES, *few, BLIND, UTILITY, *records], "measurement", POLICY)
    by_id = {check.id: check for check in checks}
    assert (by_id["per_record"].role, by_id["per_record"].verdict) == ("diagnostic", expected)
    assert by_id["membership_auc"].role == "gate"
    assert decide(checks, "measurement") == ("inconclusive", None)
    # What the original does not give away either, or was not asked for, is no evidence.
    for control in ([RECORDS.model_copy(update={"id": "record_control"})], []):
        again = judge([*FILES, *few, BLIND, UTILITY, records[0], *control], "measurement", POLICY)
        found = next(check for check in again if check.id == "per_record")
        assert found.verdict == ("inconclusive" if expected == "pass" else expected)


PLANTED = Check(
    id="companion_canaries", role="diagnostic", statistic="AUC", estimate=0.5, alpha=0.05, ci=(0.44, 0.56),
    ci95=(0.42, 0.58), margin=0.10, n=73, m=365, clusters=(73, 365),
)  # fmt: skip
PLANTED_CONTROL = PLANTED.model_copy(update={"id": "canary_control", "ci": (0.7, 0.8), "ci95": (0.68, 0.82)})


@pytest.mark.parametrize(
    ("planted", "control", "expected"),
    [
        ({}, {}, "pass"),
        ({"ci": (0.44, 0.61)}, {}, "inconclusive"),
        ({"ci95": (0.61, 0.7)}, {}, "fail"),
        ({"ci95": (0.3, 0.39)}, {}, "fail"),
        # Canaries that the original does not give away decide nothing, and cannot stand in either.
        ({}, {"ci95": (0.55, 0.7)}, "inconclusive"),
        ({"ci95": (0.61, 0.7)}, {"ci95": (0.55, 0.7)}, "inconclusive"),
        ({"margin": None, "n": 50}, {}, "inconclusive"),
    ],
)
def test_canaries_decide_where_the_original_does_not_give_the_people_away(
    planted: dict[str, Any], control: dict[str, Any], expected: str
) -> None:
    benign = CONTROL.model_copy(update={"ci": (0.48, 0.54), "ci95": (0.47, 0.55)})
    canaries = [PLANTED.model_copy(update=planted), PLANTED_CONTROL.model_copy(update=control)]
    checks = judge([*FILES, AUC, benign, BLIND, UTILITY, *canaries], "measurement", POLICY)
    assert decide(checks, "measurement")[0] == expected
    # Where the people were detectable both must pass.
    both = judge([*FILES, AUC, CONTROL, BLIND, UTILITY, *canaries], "measurement", POLICY)
    gates = both[-2].role == "gate"
    assert decide(both, "measurement")[0] == (expected if gates else "pass")
    # By procedure they are printed.
    exact = judge([*FILES, AUC, benign, BLIND, UTILITY, *canaries], "procedure", POLICY)
    assert exact[-2].role == "diagnostic"
    assert decide(exact, "procedure") == ("pass", "A")


@pytest.mark.parametrize(
    "other",
    [
        # Any attack that finds them in the candidate, or in the original, shows that they were detectable.
        {"membership_auc": {"estimate": 0.7, "ci": (0.66, 0.74), "ci95": (0.65, 0.75)}},
        {"positive_control": {"ci95": (0.7, 0.9)}},
        # What was not measured on the original was not found to be undetectable.
        {"reference_control": {"ci95": None, "estimate": None}},
    ],
)
def test_canaries_do_not_stand_in_where_any_attack_knows_the_people(other: dict[str, dict[str, Any]]) -> None:
    unseen = {"ci": (0.48, 0.54), "ci95": (0.47, 0.55)}
    checks = [
        *FILES, AUC, CONTROL.model_copy(update=unseen), BLIND, UTILITY, REFERENCE,
        REFERENCE_CONTROL.model_copy(update=unseen), PLANTED, PLANTED_CONTROL,
    ]  # fmt: skip
    assert decide(judge(checks, "measurement", POLICY), "measurement") == ("pass", "C")
    changed = [check.model_copy(update=other.get(check.id, {})) for check in checks]
    assert decide(judge(changed, "measurement", POLICY), "measurement")[0] != "pass"


def test_a_separating_blind_baseline_does_not_take_the_matched_attack_away() -> None:
    blind = BLIND.model_copy(update={"ci95": (0.6, 0.7)})
    checks = judge([blind, REFERENCE.model_copy(update={"ci95": (0.6, 0.7)})], "measurement", POLICY)
    assert checks[1].verdict == "fail"


def test_a_measured_pass_says_why_it_is_no_better_than_c() -> None:
    none = "not run: the model was trained without companion canaries"
    canaries = Check(id="companion_canaries", role="diagnostic", statistic="AUC", reason=none)
    for basis, said in (("measurement", True), ("procedure", False)):
        checks = judge([*FILES, AUC, CONTROL, BLIND, UTILITY, canaries], basis, POLICY)  # type: ignore[arg-type]
        told = "grade C at most, since the model was trained without companion canaries"
        assert (told in explain(checks, basis)) == said  # type: ignore[arg-type]
        assert decide(checks, basis) == ("pass", "C" if said else "A")  # type: ignore[arg-type]


QUALIFIED = Qualified(
    digest="q" * 64, verdict="qualified", size=100, valid_until=date(2026, 12, 1), looked_at=date(2026, 12, 1)
)
PLANTED = Check(
    id="companion_canaries", role="gate", statistic="AUC", estimate=0.5, alpha=0.05, ci=(0.47, 0.53),
    ci95=(0.46, 0.54), margin=0.05, n=305, m=1525, cluster="canary",
)  # fmt: skip
PLANTED_CONTROL = PLANTED.model_copy(update={"id": "canary_control", "ci95": (0.7, 0.8)})


@pytest.mark.parametrize(
    ("canaries", "qualified", "grade", "why"),
    [
        ({}, QUALIFIED, "B", "the method is qualified"),
        ({}, None, "C", "no valid qualification"),
        ({"margin": 0.1, "n": 80}, QUALIFIED, "C", "80 canaries are too few for the margin of 0.05"),
        ({}, QUALIFIED.model_copy(update={"verdict": "inconclusive"}), "C", "does not cover this use"),
        ({}, QUALIFIED.model_copy(update={"valid_until": date(2026, 11, 30)}), "C", "does not cover this use"),
    ],
)
def test_a_qualified_method_with_canaries_at_the_narrow_margin_is_grade_b(
    canaries: dict[str, Any], qualified: Qualified | None, grade: str, why: str
) -> None:
    planted = [PLANTED.model_copy(update=canaries), PLANTED_CONTROL]
    checks = judge([*FILES, AUC, CONTROL, BLIND, UTILITY, *planted], "measurement", POLICY)
    assert decide(checks, "measurement", qualified) == ("pass", grade)
    assert why in explain(checks, "measurement", qualified)
    exact = judge([*FILES, AUC, CONTROL, BLIND, UTILITY, *planted], "procedure", POLICY)
    assert decide(exact, "procedure", qualified) == ("pass", "A")


def test_records_that_were_never_detectable_are_no_evidence_for_b() -> None:
    hidden = CONTROL.model_copy(update={"estimate": 0.5, "ci95": (0.46, 0.54)})
    checks = judge([*FILES, AUC, hidden, BLIND, UTILITY, PLANTED, PLANTED_CONTROL], "measurement", POLICY)
    assert decide(checks, "measurement", QUALIFIED) == ("pass", "C")
    assert "not detectable in the original" in explain(checks, "measurement", QUALIFIED)


@pytest.mark.parametrize("name", ["membership_auc", "sanity", "distinct"])
def test_what_was_not_checked_is_no_pass(name: str) -> None:
    dropped: dict[str, Any] = {name: None}
    assert outcome("measurement", **dropped)[0] == "inconclusive"


def evaluation(basis: Basis) -> Evaluation:
    checks = judge([*FILES, AUC, CONTROL, BLIND, UTILITY], basis, POLICY)
    verdict, grade = decide(checks, basis)
    numbers = ModelNumbers(forget=SetNumbers(loss=0.1, accuracy=0.9), retain=None, held_out=None)
    return Evaluation(
        task="image-classification", records=Records(forget=400, retain=1000, held_out=900, retain_scored=1000),
        models=Models(original=numbers, candidate=numbers), checks=checks, metrics={}, verdict=verdict, basis=basis,
        grade=grade, policy_digest=Policy().digest(),
    )  # fmt: skip


@pytest.mark.parametrize("basis", ["procedure", "measurement"])
def test_a_third_party_comes_to_the_same_from_the_json(basis: Basis) -> None:
    read = Evaluation.model_validate_json(evaluation(basis).model_dump_json())
    assert disagreements(read, POLICY) == []


def test_a_changed_number_or_verdict_is_found() -> None:
    stated = evaluation("measurement")
    checks = [
        check.model_copy(update={"ci": (0.4, 0.6)}) if check.id == "membership_auc" else check
        for check in stated.checks
    ]
    lines = disagreements(stated.model_copy(update={"checks": checks}), POLICY)
    assert any("membership_auc" in line for line in lines)
    assert any("grade" in line for line in lines)
    assert disagreements(stated.model_copy(update={"grade": "A"}), POLICY)


def pass_rate(shift: float, sizes: tuple[int, int], margin: float, draws: int, alpha: float = 0.05) -> float:
    random = np.random.default_rng(20)
    n, m = sizes
    passed = 0
    for _ in range(draws):
        auc = clustered_auc(random.normal(shift, 1, n), random.normal(0, 1, m), np.arange(n), np.arange(m))
        low, high = auc.interval(1 - 2 * alpha)
        passed += 0.5 - margin < low and high < 0.5 + margin
    return passed / draws


def shift_of(auc: float) -> float:
    from service.verification.quantiles import normal_quantile

    return math.sqrt(2) * normal_quantile(auc)


@pytest.mark.parametrize(("n", "margin"), [(300, 0.05), (75, 0.10), (40, 0.15)])
@pytest.mark.parametrize("side", [1, -1])
def test_at_the_margin_at_most_alpha_pass(n: int, margin: float, side: int) -> None:
    rate = pass_rate(shift_of(0.5 + side * margin), (n, 2000), margin, draws=1000)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_a_clean_model_passes_as_often_as_the_design_says() -> None:
    # Research note 1.7: 286 records for a margin of 0.05; the interval's t quantile costs a little.
    assert pass_rate(0.0, (286, 6000), 0.05, draws=800) == pytest.approx(0.79, abs=0.05)


def test_splitting_alpha_keeps_retries_honest() -> None:
    """Research note 11.20: five looks at a candidate on the margin pass more often than one unless alpha is split."""
    single = pass_rate(shift_of(0.6), (75, 1000), 0.1, draws=1500, alpha=0.01)
    assert 1 - (1 - single) ** 5 <= 0.08
