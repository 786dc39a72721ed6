"""What several commands take is declared once: the same words, the same help, the same default."""

import inspect

import pytest

from workers.cli import common
from workers.cli.evaluate import evaluate
from workers.cli.qualify import qualify
from workers.cli.references import references
from workers.cli.unlearn import unlearn

SHARED = {
    "task": common.TaskName, "data": common.Data, "holdout": common.Holdout, "columns": common.Columns,
    "device": common.Device, "references": common.Pool, "params": common.Params, "policy": common.PolicyFile,
}  # fmt: skip


@pytest.mark.parametrize("command", [evaluate, qualify, references, unlearn])
def test_options_of_several_commands_are_the_same_declaration(command: object) -> None:
    assert callable(command)
    taken = inspect.signature(command).parameters
    own = {"unlearn": {"policy"}}.get(getattr(command, "__name__", ""), set())  # it says what of the policy counts
    found = {name: option.annotation for name, option in taken.items() if name in SHARED.keys() - own}
    assert len(found) >= 5
    assert all(found[name] is SHARED[name] for name in found)
