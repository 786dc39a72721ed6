"""One small model on disk for the tests of `lethe qualify`, and a catalogue with a method that does nothing."""

from pathlib import Path

import pytest
import torch

from service.catalogue import methods
from tests.workers.qualification.shelves import DO_NOTHING, make_shelf


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def doing_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue with a method that leaves the model as it is."""
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, DO_NOTHING))
