"""PDU: flattening and its multiplier by hand, two steps against plain torch, and a limit that holds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.catalogue.families.language import PduParams
from tests.workers import factories
from tests.workers.by_hand import SETTINGS_FREE, Parts, assert_same_weights, two_steps
from tests.workers.conftest import Line, measure
from workers.methods.pdu import Multiplier, flatness, pdu


def test_flatness_is_0_where_no_class_is_preferred() -> None:
    assert flatness(torch.tensor([[1.0, 1.0, 1.0], [4.0, 1.0, 1.0]])).tolist() == pytest.approx([0.0, 4.0])


def test_the_multiplier_follows_the_excess_after_the_warm_up() -> None:
    dual = Multiplier(10.0, 5.0, 1.0, warmup=1)
    weighed = [float(dual.weigh(torch.tensor(value))) for value in (3.0, 2.0, 0.0, -9.0, 2.0)]
    # 10 in the first two steps, 15 after an excess of 1, 10 after one of -1, 0 after one of -10: never below.
    assert weighed == pytest.approx([10 * 2, 10 * 1, 15 * -1, 10 * -10, 0.0])


def test_two_steps_are_those_of_a_bare_loop(chat_line: Line, tmp_path: Path) -> None:
    own = {"learning_rate": 1e-4, "epsilon": 0.2, "multiplier": 3.0, "dual_step": 2.0, "warmup": 0.0}
    params, weight = PduParams(**{**SETTINGS_FREE, **own}), [3.0]

    def term(forget: list[Parts], retain: list[Parts]) -> Tensor:
        flat = torch.stack([((p.logits.max(1).values - p.logits.mean(1)) ** 2).mean() for p in forget]).mean()
        kept = torch.cat([part.losses for part in retain]).mean()
        loss = flat + weight[0] * (kept - 0.2)
        weight[0] = max(0.0, weight[0] + 2.0 * (float(kept.detach()) - 0.2))
        return loss

    problem = chat_line.problem(10)
    outcome = pdu(problem, params, factories.context(3), tmp_path)
    assert outcome.forward_passes == 2 * 2
    assert_same_weights(tmp_path, chat_line, two_steps(problem, params, 3, term, rate=1e-4))


def test_the_retained_records_stay_near_the_limit_and_without_one_they_do_not(chat_line: Line, tmp_path: Path) -> None:
    problem, found = chat_line.problem(75), {}
    before = measure(chat_line, chat_line.base, problem)
    for name, multiplier, step in (("held", 100.0, 5.0), ("free", 0.0, 0.0)):
        (tmp_path / name).mkdir()
        params = PduParams(bound="none", multiplier=multiplier, dual_step=step, passes=5)
        pdu(problem, params, factories.context(), tmp_path / name)
        found[name] = measure(chat_line, tmp_path / name, problem)
    assert found["held"].retain < 1.5 * before.retain
    assert found["held"].forget > 1.3 * before.forget
    assert found["free"].retain > 3 * before.retain
