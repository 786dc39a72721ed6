"""Models whose linear head lies at the minimum of a convex loss, as exact methods would leave it."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from service.catalogue.parameters import EditParams
from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.editing import Edit
from workers.modeling.heads import head_data
from workers.modeling.layers import head_of
from workers.modeling.loading import save_model
from workers.modeling.problem import Problem
from workers.modeling.records import Records


def solved(inputs: Tensor, targets: Tensor, l2: float, classes: int = 10) -> Tensor:
    """argmin of mean CE + l2/2 |w|^2 over [classes, width + 1], by L-BFGS in double precision."""
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
    weights = torch.zeros(classes, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weights.T, targets) + l2 / 2 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def refitted(line: Line, folder: Path, records: Records, l2: float) -> Line:
    """The same line with its head at the minimum on these records."""
    problem = dataclasses.replace(line.problem(1), retain=records)
    edit = Edit(problem, EditParams(), factories.context())
    put_head(edit, solved(*head_data(edit, edit.retain), l2))
    folder.mkdir(parents=True)
    save_model(edit.loaded, folder)
    return dataclasses.replace(line, base=folder)


def put_head(edit: Edit, weights: Tensor) -> None:
    head = head_of(edit.model)
    with torch.no_grad():
        head.weight.copy_(weights[:, :-1])
        head.bias.copy_(weights[:, -1])


def head_weights(directory: Path, problem: Problem) -> Tensor:
    """Head of a model directory [classes, width + 1], double precision."""
    edit = Edit(dataclasses.replace(problem, base_dir=directory), EditParams(), factories.context())
    head = head_of(edit.model)
    return torch.cat([head.weight, head.bias[:, None]], dim=1).detach().double()
