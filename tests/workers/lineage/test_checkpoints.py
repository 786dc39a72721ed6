"""Checkpoints: what is kept, that a state comes back bit for bit, and that a changed file is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from service.errors import MethodRefused
from workers.lineage.checkpoints import CheckpointWriter, StoredCheckpoint, plan_checkpoints
from workers.modeling.optimizers import make_optimizer
from workers.modeling.states import model_state, state_bytes


@pytest.mark.parametrize(
    ("chosen", "epochs", "affordable", "expected"),
    [
        ("auto", 8, 100, [10, 20, 40, 80, 160, 240, 320, 400, 480, 560, 640]),
        ("auto", 40, 100, [10, 20, 40, 80, *range(400, 3201, 400)]),
        ("auto", 8, 1, [80]),
        ("auto", 8, 4, [10, 20, 40, 80]),
        ("auto", 1, 100, [*range(5, 80, 5), 80]),
        ([0.3, 0.9], 2, 100, [24, 72, 80, 160]),
        ("off", 8, 100, []),
        ("auto", 8, 0, []),
        ([0.001], 1, 100, [80]),
    ],
)
def test_the_most_useful_states_are_kept(
    chosen: str | list[float], epochs: int, affordable: int, expected: list[int]
) -> None:
    assert plan_checkpoints(chosen, 80, epochs, affordable) == expected


def test_a_small_budget_spreads_over_the_first_epoch() -> None:
    assert plan_checkpoints("auto", 160, 1, 4) == [40, 80, 120, 160]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(ids)))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    draw = torch.Generator().manual_seed(count)
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.randint(0, 7, (9,), generator=draw)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_run_goes_on_from_a_state_bit_for_bit(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = make_optimizer(net, name, 1e-2, 0.01)
    steps(net, optimizer, 5)
    writer = CheckpointWriter(tmp_path)
    writer.add(5, net, optimizer)
    steps(net, optimizer, 4)
    (facts,) = writer.close()
    other = Net()
    fresh = make_optimizer(other, name, 1e-2, 0.01)
    StoredCheckpoint(tmp_path / facts.name, facts).restore(other, fresh)
    steps(other, fresh, 4)
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert other.head.weight is other.embed.weight
    assert "scratch" not in model_state(other)
    # Headers and the step counters of the optimiser come on top.
    assert 0 < facts.bytes - state_bytes(net, name) < 2500


def test_changed_missing_and_foreign_states_are_refused(tmp_path: Path) -> None:
    net = Net()
    optimizer = make_optimizer(net, "adamw", 1e-2, 0.01)
    writer = CheckpointWriter(tmp_path)
    writer.add(3, net, optimizer)
    (facts,) = writer.close()
    stored = StoredCheckpoint(tmp_path / facts.name, facts)
    small = nn.Linear(2, 2)
    with pytest.raises(MethodRefused, match="not of this model"):
        stored.restore(small, make_optimizer(small, "adamw", 1e-2, 0.01))
    path = tmp_path / facts.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(MethodRefused, match=r"step-0000003\.safetensors is missing or not the file"):
        stored.restore(net, optimizer)
    path.unlink()
    with pytest.raises(MethodRefused, match="missing"):
        stored.restore(net, optimizer)


def test_a_disk_that_refuses_stops_the_run_not_the_thread(tmp_path: Path) -> None:
    net = Net()
    optimizer = make_optimizer(net, "sgd", 1e-2, 0.0)
    (tmp_path / "file").write_text("in the way")
    writer = CheckpointWriter(tmp_path / "file")
    writer.add(1, net, optimizer)
    with pytest.raises(OSError, match="file"):
        writer.close()
