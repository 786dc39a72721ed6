"""Membership loss: its attack against a reference fit, its term by hand, and what it must not be judged by."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.founding import MembershipLossParams
from service.catalogue.methods import find_method
from service.verification.language import EXPOSURE, RANK_ONE
from service.verification.sequential import GUESSES, RIGHT
from service.verification.verdict import CANARIES, CANARY_RATE
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.membership_loss import Attack, fitted, looked_at, membership_loss
from workers.modeling.answers import Answers


def test_the_attack_is_a_ridge_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    members, others = draw.normal(0.5, 1.0, (80, 3)), draw.normal(0.0, 1.0, (80, 3))
    attack = fitted(torch.tensor(members), torch.tensor(others))
    both = np.concatenate([members, others])
    inputs = (both - both.mean(axis=0)) / both.std(axis=0, ddof=1)
    # Its penalty is on a mean of losses: 0.01 / 2 |w|^2 against a sum over 160 records in sklearn.
    reference = LogisticRegression(C=1 / (0.01 * 160), tol=1e-8).fit(inputs, np.repeat([1, 0], 80))
    assert attack.slope.numpy() == pytest.approx(reference.coef_[0], abs=1e-3)
    odds = attack.log_odds(torch.tensor(both, dtype=torch.float32)).numpy()
    assert odds == pytest.approx(reference.decision_function(inputs), abs=1e-2)


def test_sides_of_different_size_weigh_the_same() -> None:
    draw = np.random.default_rng(1)
    members, others = draw.normal(0, 1, (30, 2)), draw.normal(0, 1, (3000, 2))
    attack = fitted(torch.tensor(members), torch.tensor(others))
    assert float(attack.log_odds(torch.tensor(others, dtype=torch.float32)).mean()) == pytest.approx(0.0, abs=0.3)


def test_it_looks_at_log_odds_and_entropy() -> None:
    logits = torch.log(torch.tensor([[0.8, 0.1, 0.1], [0.25, 0.5, 0.25]]))
    seen = looked_at(Answers(logits, torch.tensor([0, 1]), torch.arange(2), 2))
    # log(exp(loss) - 1) is minus the log-odds of the right answer.
    assert seen[:, 0].tolist() == pytest.approx([-np.log(0.8 / 0.2), 0.0], abs=1e-5)
    entropies = [-(0.8 * np.log(0.8) + 0.2 * np.log(0.1)), 1.5 * np.log(2)]
    assert seen[:, 1].tolist() == pytest.approx(entropies, abs=1e-5)
    far = looked_at(Answers(torch.tensor([[0.0, 95.0], [0.0, 400.0]]), torch.zeros(2).long(), torch.arange(2), 2))
    # Beyond the largest exponent the two are the same.
    assert far[:, 0].tolist() == pytest.approx([95.0, 400.0])
    flat = Attack(torch.zeros(2), torch.ones(2), torch.tensor([1.0, 2.0]), torch.tensor(0.5))
    assert flat.log_odds(torch.tensor([[3.0, 1.0]])).tolist() == [5.5]


@pytest.mark.parametrize(("forget", "layer"), [(10, "answers"), (270, "activations"), (100, "answers")])
def test_records_come_nearer_to_unseen_ones(digits_line: Line, tmp_path: Path, forget: int, layer: str) -> None:
    problem = digits_line.problem(forget)
    before = measure(digits_line, digits_line.base, problem)
    params = MembershipLossParams(layer=layer, epochs=2.0)  # type: ignore[arg-type]
    outcome = membership_loss(problem, params, factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert after.forget > before.forget
    assert after.forget < after.unseen + 1.0
    assert after.unseen < 1.4 * before.unseen
    assert after.retain < before.retain + 0.4
    assert "may not judge the result" in outcome.notes[-1]
    assert layer == "activations" or after.auc < before.auc


def test_unseen_records_are_left_nearly_alone(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(60)
    null = dataclasses.replace(problem, forget=digits_line.certification.subset(range(60)))
    before = measure(digits_line, digits_line.base, null)
    membership_loss(null, MembershipLossParams(), factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, null)
    assert abs(after.auc - 0.5) < abs(before.auc - 0.5) + 0.1
    assert after.unseen < 1.3 * before.unseen


def test_the_catalogue_names_the_attack_it_was_trained_against() -> None:
    named = find_method("membership_loss").opposes
    assert named[0] == "membership_auc"
    # Canaries deleted along are among the records that it is trained on.
    assert {CANARIES, CANARY_RATE, EXPOSURE, RANK_ONE, GUESSES, RIGHT} == set(named[1:])
    assert find_method("finetune").opposes == ()
