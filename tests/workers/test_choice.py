"""What the planner expects of approximate attempts, from what earlier ones cost and how many passed."""

import numpy as np
import pytest

from tests.workers.test_ladder import REPLAY, RETRAIN, names, plan
from workers.planning.choice import Past, chance_of, expected_share, leave_as_classes, order_for, worth_trying

GOOD, HOPELESS, DEAR = Past(10, 9, 0.1), Past(20, 0, 0.2), Past(10, 9, 1.2)


def test_expected_costs_are_those_of_trying_in_turn() -> None:
    assert chance_of("a", {}) == 0.5
    assert chance_of("a", {"a": Past(8, 8, 0.1)}) == pytest.approx(0.9)
    past = {"a": Past(8, 8, 0.1), "b": Past(2, 0, 0.3)}
    # 0.1 + 0.1 * (0.3 + 0.75 * 1)
    assert expected_share(["a", "b"], 1.0, past) == pytest.approx(0.1 + 0.1 * (0.3 + 0.75))
    assert expected_share([], 0.6, past) == 0.6


def test_attempts_that_do_not_pay_are_left_out_from_the_end() -> None:
    assert worth_trying(["a", "b"], 1.0, {}) == ["a", "b"]
    assert worth_trying(["a", "b"], 1.0, {"a": GOOD, "b": HOPELESS}) == ["a", "b"]
    assert worth_trying(["a", "b"], 1.0, {"a": HOPELESS, "b": DEAR}) == []
    assert worth_trying(["a", "b"], 0.15, {}) == []
    assert worth_trying(["a", "b"], 0.3, {"b": DEAR, "a": GOOD}) == ["a"]
    assert worth_trying(["a", "b"], 0.25, {"a": Past(1, 0, 0.15), "b": DEAR}) == []


def test_references_give_each_record_its_own_aim() -> None:
    assert order_for(False) == ("nabla_tau", "negative_gradient_plus")
    made = plan(has_references=True)
    assert names(made) == ["nabla_tau_ref", "nabla_tau", "retrain"]
    assert "references say what to aim at" in made.why
    assert "nabla_tau_ref" not in plan().alternatives


def test_classes_that_leave_are_no_aim_for_references() -> None:
    labels = [0, 0, 0, 1, 1, 2, 2, 2]
    assert leave_as_classes(labels, np.array([3, 4]))
    assert leave_as_classes(labels, np.array([0, 1, 2, 5]))  # three of four
    assert not leave_as_classes(labels, np.array([3, 4, 0, 5]))  # two of four
    assert not leave_as_classes(labels, np.array([0, 1, 5]))
    assert not leave_as_classes(labels, np.array([], dtype=np.int64))


def test_a_model_whose_attempts_never_pass_goes_exact_and_says_why() -> None:
    past = {"nabla_tau": HOPELESS, "negative_gradient_plus": HOPELESS}
    made = plan(past=past, exact=[REPLAY, RETRAIN])
    assert names(made) == ["replay", "retrain"]
    assert "how few passed" in made.why
    assert made.alternatives[:2] == ["nabla_tau", "negative_gradient_plus"]


def test_what_earlier_attempts_took_is_what_the_next_is_expected_to_take() -> None:
    made = plan(past={"nabla_tau": Past(4, 3, 0.37)})
    told = {estimate.method: estimate for estimate in made.estimates}
    assert told["nabla_tau"].share == 0.37
    assert told["nabla_tau"].seconds == 37.0
    assert told["nabla_tau"].why == "median of 4 earlier attempts, of which 3 passed"
    assert told["negative_gradient_plus"].why == "usual share of a training"
