"""Mini-Unlearning: its recursion against two whole trainings of a quadratic, its shares against the order log."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.influence import MiniUnlearningParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.logged_lines import logged_digits, with_history
from workers.lineage.store import ModelHistory
from workers.methods.mini_unlearning import difference, effects, mini_unlearning
from workers.modeling.earlier import last_states
from workers.modeling.records import joined


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return logged_digits(tmp_path_factory.mktemp("mini"))


def test_the_recursion_is_exact_for_a_quadratic() -> None:
    """Gradient descent on sum a_i (w - y_i)^2 / 2B, with and without the first three records, step by step."""
    draw = np.random.default_rng(0)
    a, y, rate = draw.uniform(0.5, 2.0, 20), draw.normal(0, 1, 20), 0.1
    inside, outside, terms = 0.0, 0.0, []
    for _ in range(30):
        terms.append(torch.tensor([rate / 20 * float((a[:3] * (inside - y[:3])).sum())], dtype=torch.float64))
        inside -= rate / 20 * float((a * (inside - y)).sum())
        outside -= rate / 20 * float((a[3:] * (outside - y[3:])).sum())
    contraction = 1 - rate / 20 * float(a[3:].sum())
    assert float(difference(terms, contraction)) == pytest.approx(outside - inside, rel=1e-9)
    # What lies further back has faded: the last third of the states says nearly as much.
    assert float(difference(terms[10:], contraction)) == pytest.approx(outside - inside, rel=0.3)


def test_shares_are_what_the_log_says(line: Line) -> None:
    problem, history = with_history(line, 20), ModelHistory(line.base)
    points = last_states(problem, 3)
    assert [point.step for point in points] == sorted(point.step for point in points)
    assert points[-1].step < history.steps
    begins, ends = [point.step for point in points], [*(point.step for point in points[1:]), history.steps]
    shares = effects(problem, history, begins, ends)
    expected = np.zeros(20)
    for batch in history.batches(joined(problem.retain, problem.forget), begins[-1]):
        for row in batch.rows:
            if row >= len(problem.retain):
                expected[row - len(problem.retain)] += batch.rate / len(batch.rows)
    assert np.allclose(shares[-1], expected)
    assert (shares[0] > 0).all()


@pytest.mark.parametrize("forget", [10, 150])
def test_a_move_helps_a_little_and_harms_nobody(line: Line, tmp_path: Path, forget: int) -> None:
    problem = with_history(line, forget)
    before = measure(line, line.base, problem)
    outcome = mini_unlearning(problem, MiniUnlearningParams(), factories.context(), tmp_path)
    after = measure(line, tmp_path, problem)
    assert after.forget > before.forget
    assert after.forget < after.unseen + 0.1
    assert after.unseen < 1.1 * before.unseen
    assert after.retain < before.retain + 0.5
    assert "states from step" in outcome.notes[-1]
    # The known weakness: one direction for all does not hide who was there.
    assert after.auc > 0.5


def test_unseen_records_are_left_nearly_alone(line: Line, tmp_path: Path) -> None:
    """They are in no logged batch, so that there is nothing to take back."""
    problem = with_history(line, 20)
    null = dataclasses.replace(problem, forget=line.certification.subset(range(20)))
    before = measure(line, line.base, null)
    outcome = mini_unlearning(null, MiniUnlearningParams(), factories.context(), tmp_path)
    after = measure(line, tmp_path, null)
    assert after.forget == pytest.approx(before.forget)
    assert any("nothing was moved" in note for note in outcome.notes)


def test_without_a_state_it_is_refused(digits_line: Line, tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match="what the training of the model recorded"):
        mini_unlearning(digits_line.problem(5), MiniUnlearningParams(), factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []
