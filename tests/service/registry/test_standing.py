"""Models say where their reference pool stands: over HTTP, one and listed, and on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.cli.main import main
from service.database import clock, transaction
from service.queue import TASK_TRAIN_REFERENCE
from service.references import leases
from service.references.service import Wanted, prepare
from service.registry import pools, repository
from tests.service.conftest import MakeKey
from tests.service.references.support import (
    COUNT,
    claim,
    members,
    plan,
    publish_deletion,
    register,
    settle,
    train,
    train_waiting,
)

NOBODY = {"method": 0, "gate": 0}


@pytest.fixture
def told(
    api: TestClient, make_key: MakeKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[], dict[str, Any]]:
    """The object `references` of the model "digits", after a look at every place that shows it."""
    register(tmp_path)
    headers = make_key("submitter")

    def look() -> dict[str, Any]:
        capsys.readouterr()
        assert main(["models", "list", "--json"]) == 0
        one = api.get("/v1/models/digits", headers=headers).json()
        (listed,) = api.get("/v1/models", headers=headers).json()["items"]
        (printed,) = json.loads(capsys.readouterr().out)["items"]
        assert one == listed == printed
        return dict(one["references"])

    return look


def test_from_none_to_ready_and_after_a_deletion(told: Callable[[], dict[str, Any]]) -> None:
    assert told() == {"state": "none", "count": 0, "done": 0, "progress": 0.0, "sides": NOBODY}
    pool_id = prepare("digits", Wanted(count=COUNT))
    assert told() == {"state": "planning", "count": COUNT, "done": 0, "progress": 0.0, "sides": NOBODY}
    plan(pool_id)
    train(members(pool_id)[0])
    assert leases.renew(claim(TASK_TRAIN_REFERENCE, members(pool_id)[1].id), progress=0.25)
    sides = {"method": 0, "gate": COUNT}
    # 98 % of one and a quarter of eight.
    assert told() == {"state": "building", "count": COUNT, "done": 1, "progress": 0.1531, "sides": sides}
    with transaction() as session:
        pools.give_back(pools.members_of(session, pool_id)[1])
    train_waiting(pool_id)
    assert told()["progress"] == 0.98  # the tables are missing
    assert settle(pool_id)
    assert told() == {"state": "ready", "count": COUNT, "done": COUNT, "progress": 1.0, "sides": sides}
    publish_deletion(0, 3)
    assert told() == {"state": "refreshing", "count": COUNT, "done": 6, "progress": 0.735, "sides": sides}
    with transaction() as session:
        pools.end_pool(session, repository.get_model(session, "digits"), clock(session), actor="test", why="a test")
    assert told()["state"] == "none"
