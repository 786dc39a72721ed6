"""Limits that keep files and functions readable. Who meets one splits by meaning; nobody raises it."""

import ast
from collections.abc import Iterator

from tests.architecture.files import ROOT, python_files

FILE_LINES = 500
FUNCTION_LINES = 50
TEST_FUNCTION_LINES = 80
CONFTEST_LINES = 150

FOLDERS = ("service", "workers", "migrations", "tests", "benchmarks", "scripts")


def long_functions(source: str, limit: int) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > limit:
                yield node.name, length


def test_files_are_short() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in python_files(*FOLDERS)}
    assert lengths
    assert {str(path): lines for path, lines in lengths.items() if lines > FILE_LINES} == {}


def test_conftests_are_shorter() -> None:
    files = [path for path in python_files("tests") if path.name == "conftest.py"]
    assert [str(path) for path in files if len((ROOT / path).read_text().splitlines()) > CONFTEST_LINES] == []


def test_functions_are_short() -> None:
    # Not migrations: they list operations one after the other, and are never read as logic.
    found = []
    for path in python_files("service", "workers", "benchmarks", "scripts", "tests"):
        limit = TEST_FUNCTION_LINES if path.parts[0] == "tests" else FUNCTION_LINES
        found += [(str(path), *each) for each in long_functions((ROOT / path).read_text(), limit)]
    assert found == []


def test_package_files_are_empty() -> None:
    # An import here would load with every module of the package, unseen by the import contracts.
    files = [path for path in python_files(*FOLDERS) if path.name == "__init__.py"]
    assert [str(path) for path in files if (ROOT / path).read_text().strip()] == []
