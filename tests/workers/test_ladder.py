"""The ladder: which methods a job tries for which forget set, and why."""

from typing import Any

import pytest

from service.errors import BadParameters
from service.verification.policy import Policy, margin_for
from service.verification.schema import Check
from service.verification.verdict import decide, judge
from workers.planning.costs import ExactOption
from workers.planning.ladder import Plan, Situation, plan_ladder

RETRAIN = ExactOption("retrain", 1.0, "training again")
REPLAY = ExactOption("replay", 0.6, "from step 40")


def plan(policy: Policy | None = None, **changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "task": "causal-lm",
        "forget_records": 120,
        "forget_subjects": 24,
        "data_records": 1000,
        "has_held_out": True,
        "exact": [RETRAIN],
        "train_seconds": 100.0,
    }
    return plan_ladder(policy or Policy(), Situation(**(facts | changes)))


def names(made: Plan) -> list[str]:
    return [rung.method for rung in made.rungs]


def test_sets_that_can_be_judged_get_two_approximate_attempts_then_the_exact_method() -> None:
    made = plan()
    assert names(made) == ["nabla_tau", "negative_gradient_plus", "retrain"]
    assert [rung.kind for rung in made.rungs] == ["approximate", "approximate", "exact"]
    assert made.expected_seconds is not None
    assert 0 < made.expected_seconds < 100


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"forget_records": 32}, "fewer than 33 records, too few for the attack on them to decide, and neither"),
        ({"forget_subjects": 9}, "fewer than 10 people, too few for the attack on them to decide, and neither"),
        ({"has_held_out": False}, "no held-out set"),
    ],
)
def test_sets_that_cannot_be_judged_go_to_exact_at_once(change: dict[str, Any], why: str) -> None:
    made = plan(**change)
    assert names(made) == ["retrain"]
    assert why in made.why
    with pytest.raises(BadParameters, match="no recipe"):
        plan(**change, exact=[])


def best_case(records: int, people: int, found_before: bool) -> list[Check]:
    """Everything that can speak for a candidate does: the canaries, the records one by one, utility, and the attacks as
    far as they are measured on so few. `found_before`: the attacks find the records in the original."""
    rules, size = Policy().verification, {"n": records, "clusters": (people, 400), "alpha": 0.025}
    margin = margin_for(rules.auc_margin, records)
    clean: dict[str, Any] = {"estimate": 0.5, "ci": (0.499, 0.501), "ci95": (0.499, 0.501)}
    leak: dict[str, Any] = {"estimate": 0.9, "ci": (0.89, 0.91), "ci95": (0.89, 0.91)}
    before = leak if found_before else clean
    alone: dict[str, Any] = {"estimate": 0.0, "ci": (-0.1, 0.1), "ci95": (-0.1, 0.1), "margin": 2.0, "p_value": 0.9}
    shift = {"estimate": 9.0, "ci": (8.0, 10.0), "ci95": (8.0, 10.0)} if found_before else {}
    values: dict[str, dict[str, Any]] = {
        "distinct": {"verdict": "pass"},
        "sanity": {"verdict": "pass", "estimate": 1.0},
        "membership_auc": clean | size | {"margin": margin},
        "positive_control": before | size | {"margin": margin},
        "blind_baseline": clean | {"margin": 0.05},
        "difficulty_baseline": clean | {"margin": 0.05},
        "reference_auc": clean | size | {"margin": margin, "references": 16, "p_value": 0.9},
        "reference_control": before | size | {"margin": margin, "references": 16, "p_value": 1e-9},
        "per_record": alone,
        "record_control": alone | shift,
        "companion_canaries": clean | {"margin": 0.05, "n": 1000, "m": 5000},
        "companion_rate": {"estimate": 0.05, "ci": (0.04, 0.06), "ci95": (0.04, 0.06), "margin": 0.12, "n": 1000},
        "canary_control": leak | {"margin": 0.05, "n": 1000, "m": 5000},
        "utility": {"estimate": 0.0, "ci": (0.0, 0.0), "ci95": (0.0, 0.0), "margin": 0.015, "n": 3000}
        | {"clusters": (3000,), "statistic": "accuracy difference"},
    }
    checks = [Check(**({"id": name, "role": "diagnostic", "statistic": ""} | told)) for name, told in values.items()]
    return judge(checks, "measurement", rules)


@pytest.mark.parametrize("found_before", [True, False])
@pytest.mark.parametrize(
    ("records", "people"), [(1, 1), (4, 4), (10, 10), (32, 10), (32, 32), (33, 9), (33, 10), (75, 33), (300, 9)]
)
def test_an_approximate_attempt_is_made_exactly_where_the_gate_could_let_one_pass(
    records: int, people: int, found_before: bool
) -> None:
    """No evidence of canaries or of records one by one lets an attempt pass on a set that no attack is measured on."""
    verdict, _ = decide(best_case(records, people, found_before), "measurement")
    tried = plan(forget_records=records, forget_subjects=people, data_records=10**6).rungs[0].kind == "approximate"
    assert (verdict == "pass") is tried


def test_a_policy_with_margins_for_fewer_records_has_them_tried() -> None:
    policy = Policy.model_validate({"verification": {"auc_margin": {"5": 0.3}, "min_subjects": 2}})
    assert names(plan(policy, forget_records=5, forget_subjects=2))[0] == "nabla_tau"
    assert "fewer than 5 records" in plan(policy, forget_records=4, forget_subjects=2).why


def test_without_a_recipe_the_ladder_ends_before_the_exact_method() -> None:
    assert names(plan(exact=[])) == ["nabla_tau", "negative_gradient_plus"]


def test_the_policy_decides_the_number_and_the_names() -> None:
    policy = Policy.model_validate({"ladder": {"approximate_attempts": 1}})
    assert names(plan(policy)) == ["nabla_tau", "retrain"]
    policy = Policy.model_validate({"ladder": {"methods": ["negative_gradient_plus"]}})
    assert names(plan(policy)) == ["negative_gradient_plus", "retrain"]
    policy = Policy.model_validate({"ladder": {"methods": ["retrain"]}})
    assert names(plan(policy)) == ["retrain"]
    assert "policy" in plan(policy).why


def test_the_cheapest_exact_method_comes_first_and_training_again_stands_behind_it() -> None:
    made = plan(forget_subjects=2, exact=[REPLAY, RETRAIN])
    assert names(made) == ["replay", "retrain"]
    assert {entry.method: (entry.share, entry.seconds) for entry in made.estimates} == {
        "replay": (0.6, 60.0),
        "retrain": (1.0, 100.0),
    }
    assert made.expected_seconds == 60.0


def test_one_that_may_be_refused_has_to_save_something() -> None:
    made = plan(forget_subjects=2, exact=[ExactOption("replay", 0.95, "early"), RETRAIN])
    assert names(made) == ["retrain"]
    assert made.alternatives == ["nabla_tau", "negative_gradient_plus", "replay"]


def test_a_cheap_exact_method_is_taken_before_any_approximate_attempt() -> None:
    made = plan(exact=[ExactOption("replay", 0.2, "first met in step 85 of 100"), RETRAIN])
    assert names(made) == ["replay", "retrain"]
    assert "replay costs 20% of a training (first met in step 85" in made.why
    # 0.2 + 0.5 * (0.2 + 0.5 * 0.3) is more than 0.3: nothing is known yet of what passes.
    assert names(plan(exact=[ExactOption("replay", 0.3, "first met in step 70"), RETRAIN])) == ["replay", "retrain"]
    dear = plan(exact=[ExactOption("replay", 0.5, "first met in step 50"), RETRAIN])
    assert names(dear) == ["nabla_tau", "negative_gradient_plus", "replay", "retrain"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"edits": 10}, "10 approximate versions"),
        ({"edited_records": 10}, "1.0% of the data was removed by approximate methods"),
        ({"seconds_left": 130.0}, "deadline leaves no time"),
    ],
)
def test_what_has_piled_up_or_runs_out_of_time_goes_to_exact(change: dict[str, Any], why: str) -> None:
    made = plan(**change)
    assert names(made) == ["retrain"]
    assert why in made.why


@pytest.mark.parametrize("methods", [["auto"], ["nabla_tau"], ["nabla_tau", "retrain"]])
def test_an_alarm_leaves_exact_methods_alone(methods: list[str]) -> None:
    policy = Policy.model_validate({"ladder": {"methods": methods}})
    assert names(plan(policy))[0] == "nabla_tau"
    made = plan(policy, alarm=34.2)
    assert names(made) == ["retrain"]
    assert "e-value 34.2, an alarm" in made.why
    with pytest.raises(BadParameters, match="no recipe"):
        plan(policy.model_copy(update={"ladder": policy.ladder.model_copy(update={"methods": ["auto"]})}),
             alarm=34.2, exact=[])  # fmt: skip


def test_a_little_has_not_piled_up() -> None:
    assert names(plan(edits=9, edited_records=9, seconds_left=141.0))[0] == "nabla_tau"
