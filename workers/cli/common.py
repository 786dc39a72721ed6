"""What the model owner's commands share: options, inputs, exits, and a bar on standard error."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from service.catalogue.recipes import Recipe
    from service.datasets.records import RecordTable
    from service.verification.statistics import NotMeasurable
    from workers.modeling.problem import Context, Progress
    from workers.planning.calibrated import References
    from workers.planning.problems import Line

Model = Annotated[Path, typer.Option("--model", help="The directory of the model that is served.")]
Data = Annotated[Path, typer.Option(help="Training data: Parquet, JSONL, CSV or a folder of parts.")]
Holdout = Annotated[Path | None, typer.Option(help="Records of people who were never trained on.")]
Columns = Annotated[str, typer.Option(help="role=COLUMN,... where the names differ.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="For models trained elsewhere.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="TOML; absent: the defaults.")]
Params = Annotated[str, typer.Option("--params", help="Parameters of the method, as JSON.")]
Pool = Annotated[Path | None, typer.Option("--references", help="A pool that `lethe references` built.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1; default from LETHE_DEVICE.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Default: the recipe's, else 0.")]
TaskName = Annotated[str, typer.Option("--task", help="image-classification, text-classification or causal-lm.")]

UNMEASURED = 4
"""The exit code where nothing could be measured: 1 says that what was measured is bad."""


def open_data(path: Path, task: str, columns: str) -> "RecordTable":
    """Checked records of a data set. Raises BadDataset, BadParameters."""
    from service.datasets.checks import check_records
    from service.datasets.columns import parse_pairs
    from service.datasets.records import open_records

    names = parse_pairs(columns, "--columns")
    check_records(path, task, names, {})
    return open_records(path, task, names)


def line_of(model: Path, task: str, data: Path, holdout: Path | None, columns: str) -> "Line":
    """The model's line with its checked records, as its training left it."""
    from workers.planning.problems import open_line

    people = open_data(data, task, columns)
    held_out = open_data(holdout, task, columns) if holdout else None
    return open_line(model, task, people, held_out, digest_of(holdout) if holdout else None)


def digest_of(path: Path) -> str:
    """The digest of a data set, as registration computes it."""
    from service.datasets.sources import dataset_digest

    return dataset_digest(path)


def read_ids(path: Path) -> list[str]:
    """Record ids, one a line. Raises BadParameters for a missing or empty file."""
    from service.errors import BadParameters

    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameters(f"--forget {path}: cannot be read as text, one record id a line") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise BadParameters(f"--forget {path}: names no record; write one record id a line")
    return ids


def choose_recipe(given: Path | None, model: Path) -> "Recipe | None":
    """The recipe file, else the one in the model's training record."""
    from workers.modeling.recipe import load_recipe
    from workers.modeling.training_record import read_record

    if given is not None:
        return load_recipe(given)
    record = read_record(model)
    return record.recipe if record else None


def needed_recipe(given: Path | None, model: Path) -> "Recipe":
    """The same; raises BadParameters where there is neither."""
    from service.errors import BadParameters

    chosen = choose_recipe(given, model)
    if chosen is None:
        raise BadParameters(f"{model} has no training record: give the recipe it was trained by with --recipe")
    return chosen


def parse_params(text: str) -> dict[str, Any]:
    """Parameters of a method as JSON. Raises BadParameters."""
    from service.errors import BadParameters

    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadParameters("--params must be a JSON object")
    return found


def gate_references(pool: Path | None, task: str, data: Path, holdout: Path | None) -> "References | NotMeasurable":
    """The gate's side of the pool given, or why there is none. Raises BadParameters for a pool of something else."""
    from workers.planning.calibrated import NO_REFERENCES, open_references

    if pool is None:
        return NO_REFERENCES
    return open_references(pool, task, digest_of(data), digest_of(holdout) if holdout else None)


@contextmanager
def crashes_apart(doing: str) -> Iterator[None]:
    """Bad input goes on to exit 2; a model or a score that cannot be judged, or a crash, ends with exit 4.

    Exit 1 means that what was judged is bad, and nothing else may look like it.
    """
    from service.errors import BadModel, BadRequest, Invalid, LetheError

    try:
        yield
    except Exception as error:
        usage = isinstance(error, Invalid | BadRequest) and not isinstance(error, BadModel)
        if usage or os.environ.get("LETHE_DEBUG"):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        detail = error.detail if isinstance(error, LetheError) else f"{type(error).__name__}: {first}"
        typer.echo(f"lethe: could not {doing}: {' '.join(detail.split())}", err=True)
        raise typer.Exit(UNMEASURED) from None


@contextmanager
def running(device: str, seed: int, title: str) -> "Iterator[Context]":
    """A context whose progress is a bar with ETA on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from service.settings import get_settings
    from workers.modeling.devices import resolve_device, seed_everything
    from workers.modeling.problem import Context

    settings = get_settings()
    seed_everything(seed, settings.threads)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty())
    with bar:
        line = bar.add_task(title, total=1.0)

        def report(progress: "Progress") -> None:
            bar.update(line, completed=progress.fraction, description=f"{title}: {progress.message}")

        yield Context(resolve_device(device or settings.device), seed, settings.threads, report)


def columns_of(table: Any) -> dict[str, str]:
    """Role -> column as the training record keeps it."""
    names: dict[str, str] = getattr(table, "columns", {})
    return dict(names)
