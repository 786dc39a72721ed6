"""`lethe evaluate`: every check of the suite on two or more model directories."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from service.cli.output import AsJson, print_json
from workers.cli.common import (
    Columns,
    Data,
    Device,
    Holdout,
    PolicyFile,
    Pool,
    RecipeFile,
    TaskName,
    crashes_apart,
    digest_of,
    gate_references,
    line_of,
    read_ids,
    running,
)

if TYPE_CHECKING:
    from service.verification.schema import Check, Evaluation

EXITS = {"pass": 0, "fail": 1, "inconclusive": 3}
_SEVERAL = "--retrained"

command = typer.Typer(help="Judge a candidate model directory.", add_completion=False)


class _Command(TyperCommand):
    """Takes `--retrained A B` as `--retrained A --retrained B`: options here have a fixed number of values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat(args))


def repeat(arguments: Sequence[str]) -> list[str]:
    """The same arguments with `--retrained` before each of its values."""
    spread: list[str] = []
    listing = False
    for word in arguments:
        if word.startswith("-"):
            listing = word == _SEVERAL
        elif listing and spread[-1] != _SEVERAL:
            spread.append(_SEVERAL)
        spread.append(word)
    return spread


@command.command(cls=_Command)
def evaluate(
    original: Annotated[Path, typer.Option(help="The model directory before unlearning.")],
    candidate: Annotated[Path, typer.Option(help="The model directory to judge.")],
    task: TaskName,
    data: Data,
    forget: Annotated[Path, typer.Option(help="Record ids, one a line.")],
    holdout: Holdout = None,
    retrained: Annotated[list[Path] | None, typer.Option(help="Models retrained without the records; several.")] = None,
    recipe: RecipeFile = None,
    policy: PolicyFile = None,
    references: Pool = None,
    columns: Columns = "",
    device: Device = "",
    seed: Annotated[int, typer.Option(min=0, help="Of samples and folds.")] = 0,
    ignore_record: Annotated[bool, typer.Option("--ignore-record", help="Judge by measurement alone.")] = False,
    robustness: Annotated[bool, typer.Option("--robustness", help="Also round and fine-tune the models.")] = False,
    extraction: Annotated[bool, typer.Option("--extraction", help="Also let language models speak.")] = False,
    serve_precision: Annotated[str, typer.Option(help="What people get: fp32, bf16, int8 or int4.")] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Judge a candidate: exit 0 pass, 1 fail, 3 inconclusive, 4 could not evaluate, 2 bad usage."""
    _refuse_missing([original, candidate, *(retrained or [])])
    with crashes_apart("evaluate"):
        from service.catalogue.precisions import check_precision
        from service.verification.policy import load_policy
        from workers.modeling.recipe import load_recipe
        from workers.planning import evaluation

        precision = check_precision(serve_precision)
        rules, rule = load_policy(policy), load_recipe(recipe) if recipe else None
        ids, line = _ids(forget), line_of(original, task, data, holdout, columns)
        pool = gate_references(references, task, data, holdout)
        with running(device, seed, "evaluate") as context:
            given: dict[str, Any] = {"line": line, "candidate_dir": candidate, "retrained_dirs": retrained or []}
            given |= {"forget_ids": ids, "context": context}
            found, _ = evaluation.evaluate(
                **given,
                policy=rules,
                alpha=None,
                ignore_record=ignore_record,
                data_digest=_data_digest(original, data),
                recipe=rule,
                references=pool,
                robustness=robustness,
                serve_precision=precision,
            )
            found = evaluation.with_extraction(found, **given) if extraction else found
    _show(found, as_json)
    raise typer.Exit(EXITS[found.verdict])


def _refuse_missing(directories: Sequence[Path]) -> None:
    from service.errors import BadParameters

    for path in directories:
        if not path.is_dir():
            raise BadParameters(f"{path}: no such model directory")


def _ids(path: Path) -> list[str]:
    """The record ids; none for a file of blank lines, which is for the evaluation to refuse and not for the parser."""
    blank = path.is_file() and not path.read_bytes().strip()
    return [] if blank else read_ids(path)


def _data_digest(original: Path, data: Path) -> str | None:
    """The digest of the data for an original without a training record; one that has a record speaks for itself."""
    from workers.modeling.training_record import RECORD_FILE

    return None if (original / RECORD_FILE).is_file() else digest_of(data)


def _show(found: "Evaluation", as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "role", "estimate", "interval", "95 %", "margin", "n / m", "result", box=None)
    for check in found.checks:
        table.add_row(*_cells(check))
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 160)  # piped: whole names, so that lines can be searched
    console.print(table)
    console.print(_sentence(found), highlight=False, soft_wrap=True)


def _cells(check: "Check") -> list[str]:
    sizes = " / ".join(str(size) for size in (check.n, check.m) if size)
    return [
        check.id,
        check.role,
        _number(check.estimate),
        " to ".join(map(_number, check.ci or ())) or "-",
        " to ".join(map(_number, check.ci95 or ())) or "-",
        _number(check.margin),
        sizes or "-",
        check.verdict,
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _sentence(found: "Evaluation") -> str:
    grade = f", grade {found.grade}" if found.grade else ""
    return f"{found.verdict}{grade}, by {found.basis}: {found.reason}. {' '.join(found.limits[:2])}"
