"""The catalogue, the files, the README's tables, the tests and the task names say the same."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module

import pytest

from service import queue
from service.catalogue.methods import METHODS
from service.catalogue.metrics import METRICS
from tests.architecture.files import ROOT, python_files

SPECS = {"methods": METHODS, "metrics": METRICS}
TARGETS = [spec.target for specs in SPECS.values() for spec in specs]


def modules_of(kind: str) -> set[str]:
    files = (path for path in python_files("workers") if path.parts[1] == kind)
    return {path.stem for path in files if path.name != "__init__.py"}


def entries_of(kind: str) -> set[str]:
    return {spec.target.partition(":")[0].removeprefix(f"workers.{kind}.") for spec in SPECS[kind]}


def mentions(source: str, package: str) -> Iterator[str]:
    """Modules of the package that a test imports, and its quoted words (names in the catalogue)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.removeprefix(f"{package}.")


@pytest.mark.parametrize("kind", SPECS)
def test_names_are_unique(kind: str) -> None:
    names = [spec.name for spec in SPECS[kind]]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("kind", SPECS)
def test_every_file_has_an_entry_and_every_entry_a_file(kind: str) -> None:
    assert modules_of(kind) == entries_of(kind)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_called(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("kind", SPECS)
def test_every_entry_has_a_test(kind: str) -> None:
    files = [path for path in python_files("tests") if path.parts[1] != "architecture"]
    mentioned = set().union(*(mentions((ROOT / path).read_text(), f"workers.{kind}") for path in files))
    assert entries_of(kind) - mentioned == set()


@pytest.mark.parametrize("kind", SPECS)
def test_every_name_is_in_a_table_of_the_readme(kind: str) -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    listed = set(re.findall(r"`([^`]+)`", "\n".join(rows)))
    assert {spec.name for spec in SPECS[kind]} - listed == set()


def test_every_task_name_is_registered() -> None:
    celery = import_module("workers.app").celery
    celery.loader.import_default_modules()
    names = {value for key, value in vars(queue).items() if key.startswith("TASK_")}
    assert names
    assert names - set(celery.tasks) == set()


def test_every_contributed_command_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in project["entry-points"]["lethe.commands"].values():
        module, _, name = target.partition(":")
        assert hasattr(import_module(module), name), target
