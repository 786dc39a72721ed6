"""The schema: what the migrations make is what the models say, and every step can be taken back."""

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect

from service import database
from service.database import get_engine


def test_models_and_migrations_agree(database_url: str) -> None:
    command.check(database.migration_config())  # raises when autogenerate would have something to write
    assert database.at_head()


def test_every_step_can_be_taken_back_and_taken_again(database_url: str) -> None:
    config = database.migration_config()
    command.downgrade(config, "base")
    assert inspect(get_engine()).get_table_names() == ["alembic_version"]
    assert not database.at_head()
    database.upgrade()
    database.upgrade()
    assert database.at_head()


def test_migrating_needs_no_particular_directory(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database.upgrade()
    assert database.at_head()


def test_the_partial_indexes_are_there(database_url: str) -> None:
    indexes = {index["name"]: index for index in inspect(get_engine()).get_indexes("jobs")}
    assert indexes["uq_jobs_open_model"]["unique"]
    kind = get_engine().dialect.name
    assert "queued" in str(indexes["uq_jobs_open_model"]["dialect_options"][f"{kind}_where"])
