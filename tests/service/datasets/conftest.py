"""What the tests of compaction begin with."""

from pathlib import Path

import pytest

from tests.service.datasets.support import OF_S1, RECIPE, forget
from tests.service.factories import register_images


@pytest.fixture
def forgotten(database_url: str, tmp_path: Path) -> Path:
    """The model "digits", one of whose six people is forgotten; answers the folder of its data."""
    folder = tmp_path / "data"
    (tmp_path / "recipe.toml").write_text(RECIPE)
    register_images(folder, recipe=tmp_path / "recipe.toml")
    forget(OF_S1)
    return folder
