"""The ladder: which methods a job tries for which forget set, and why."""

from typing import Any

import pytest

from service.errors import BadParameters
from service.verification.policy import Policy
from workers.planning.ladder import Plan, plan_ladder


def plan(policy: Policy | None = None, **changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "task": "causal-lm",
        "forget_records": 120,
        "forget_subjects": 24,
        "data_records": 1000,
        "has_recipe": True,
        "has_held_out": True,
        "train_seconds": 100.0,
    }
    return plan_ladder(policy or Policy(), **(facts | changes))


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
        ({"forget_records": 32}, "fewer than 33 records"),
        ({"forget_subjects": 9}, "fewer than 10 people"),
        ({"has_held_out": False}, "no held-out set"),
    ],
)
def test_sets_that_cannot_be_judged_go_to_exact_at_once(change: dict[str, Any], why: str) -> None:
    made = plan(**change)
    assert names(made) == ["retrain"]
    assert why in made.why
    with pytest.raises(BadParameters, match="no recipe"):
        plan(**change, has_recipe=False)


def test_without_a_recipe_the_ladder_ends_before_the_exact_method() -> None:
    assert names(plan(has_recipe=False)) == ["nabla_tau", "negative_gradient_plus"]


def test_the_policy_decides_the_number_and_the_names() -> None:
    policy = Policy.model_validate({"ladder": {"approximate_attempts": 1}})
    assert names(plan(policy)) == ["nabla_tau", "retrain"]
    policy = Policy.model_validate({"ladder": {"methods": ["negative_gradient_plus"]}})
    assert names(plan(policy)) == ["negative_gradient_plus", "retrain"]
    policy = Policy.model_validate({"ladder": {"methods": ["retrain"]}})
    assert names(plan(policy)) == ["retrain"]
    assert "policy" in plan(policy).why
