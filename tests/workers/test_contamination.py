"""Which references hold a deleted record is read from the pool's plan, in a process that has no torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from service.database import reading
from service.errors import BadParameters
from service.references.service import Wanted, prepare
from service.registry.models import Model
from tests.service.references.support import COUNT, register, row
from tests.workers import factories
from tests.workers.references.conftest import DATA, tiny_recipe
from workers.modeling.train import Provenance, train_by_recipe
from workers.references.layout import SPLIT_FILE, read_split
from workers.references.members import Materials
from workers.references.pool import plan_pool
from workers.tasks.contamination import affected_by

WITHOUT_TORCH = """
import sys
from pathlib import Path
from sqlalchemy import select
from service.database import reading
from service.registry.models import Model
from workers.app import celery
from workers.tasks import publish, resolve
from workers.tasks.contamination import affected_by
celery.loader.import_default_modules()
with reading() as session:
    model = session.scalars(select(Model)).one()
print(affected_by(model, sys.argv[2:], reserve=False)(Path(sys.argv[1])))
loaded = {"torch", "transformers", "sklearn"} & set(sys.modules)
assert not loaded, loaded
"""


@pytest.fixture
def path(database_url: str, tmp_path: Path) -> Path:
    """The folder of a queued pool whose halves are drawn."""
    register(tmp_path)
    folder = Path(row(prepare("digits", Wanted(count=COUNT))).path)
    data, held_out = factories.digits(60, 20)
    train_by_recipe(tiny_recipe(1), data, tmp_path / "served", 0, factories.context(), Provenance(DATA))
    plan_pool(folder, Materials(tmp_path / "served", data, held_out, tiny_recipe(1), DATA, DATA, {}), COUNT, 3, 0.5)
    return folder


def _model() -> Model:
    with reading() as session:
        return session.scalars(select(Model)).one()


def test_members_are_named_that_train_on_a_record(path: Path) -> None:
    planned = read_split(path)
    inside, outside = (planned.train[planned.split.trainable == wanted][0] for wanted in (True, False))
    affected = affected_by(_model(), [inside, "nobody"], reserve=False)
    at = int((planned.train == inside).nonzero()[0][0])
    assert affected(path) == [number for number in range(COUNT) if planned.split.trained_by(number)[at]]
    assert len(affected(path) or ()) == COUNT // 2
    assert affected_by(_model(), [outside], reserve=False)(path) == []  # scored by all, learnt by none
    assert affected_by(_model(), ["nobody"], reserve=False)(path) is None


def test_held_out_records_count_where_they_are_a_reserve_of_the_data(path: Path) -> None:
    held_out = read_split(path).held_out[:1].tolist()
    assert affected_by(_model(), held_out, reserve=False)(path) is None
    assert affected_by(_model(), held_out, reserve=True)(path) == []


def test_a_plan_that_is_not_there_yet_and_one_that_is_damaged(path: Path) -> None:
    (path / SPLIT_FILE).write_bytes(b"ARROW1 and nothing else")
    affected = affected_by(_model(), ["d00001"], reserve=False)
    with pytest.raises(BadParameters, match=SPLIT_FILE):
        affected(path)
    (path / SPLIT_FILE).unlink()
    assert affected(path) == []


def test_a_publishing_process_needs_no_torch(path: Path) -> None:
    record = str(read_split(path).train[read_split(path).split.trainable][0])
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path), record]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(affected_by(_model(), [record], reserve=False)(path))
