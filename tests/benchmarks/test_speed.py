"""The tape of the speed benchmark: it holds the passes that a method makes, and a bare loop can play it."""

from pathlib import Path

import torch

from benchmarks.speed import Sizes, _problem, play, recording
from workers.modeling.problem import Context
from workers.planning.attempt import run_attempt


def test_a_tape_holds_each_pass_once(tmp_path: Path) -> None:
    """KL minimisation: in each step the forgotten batch, the retained one by the served model and by the edited one."""
    problem = _problem("causal-lm", Sizes(6, 1, 1), tmp_path / "base")
    count = len(problem.forget)
    with recording() as tape:
        result = run_attempt(
            "kl_min",
            {"passes": 2, "bound": "none", "forget_batch": count, "retain_batch": 4},
            problem,
            Context(torch.device("cpu")),
            tmp_path / "out",
        )
    kinds = [event[0] if event[0] != "pass" else (len(event[2]), event[3]) for event in tape.events]
    assert kinds == 2 * [(count, True), (4, False), (4, True), "backward", "step"]
    assert sum(event[0] == "pass" for event in tape.events) == result.forward_passes
    assert tape.samples == 2 * (count + 8)
    assert 0 < tape.seconds < result.cpu_seconds
    assert 0 < play(tape, problem.base_dir, "causal-lm") < 10 * tape.seconds
