"""`lethe datasets`: the data of registered models, straight in the database, audited as "local"."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.db import require_schema
from service.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from service.datasets.survey import Watch
    from service.jobs.compaction import Compaction

command = typer.Typer(help="List registered data, and rewrite it without deleted records.", no_args_is_help=True)


@command.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the data of each model, and how many deleted records still lie in it."""
    from service.database import reading
    from service.jobs.compaction import overview

    require_schema()
    with reading() as session:
        items = overview(session)
    if as_json:
        print_json({"items": items})
        return
    headers = ("model", "path", "records", "tombstones", "deleted_records")
    rows = [[item[key] for key in headers] for item in items]
    print_table(headers, rows, "There are no models; register one with `lethe models register`.")


@command.command()
def compact(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    out: Annotated[Path, typer.Option(help="Where the data goes: a new file of the same format, or a new folder.")],
    holdout_out: Annotated[
        Path | None, typer.Option(help="The same for the held-out set, where that holds deleted records too.")
    ] = None,
    destroy_source: Annotated[
        bool, typer.Option("--destroy-source", help="Delete the old data files once the new ones are registered.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rewrite the data of a model without the records that it was made to forget, and list what still holds them."""
    from service.jobs import compaction, remnants

    require_schema()
    with _bar() as watch:
        done = compaction.compact(model, out, holdout_out, watch=watch, exclusive=destroy_source)
    destroyed = [str(path) for path in remnants.destroy_source(done)] if destroy_source else []
    view = _view(done, [vars(remnant) for remnant in remnants.remnants(done)], destroyed)
    if as_json:
        print_json(view)
    else:
        _show(view)
    if destroy_source and any(entry["what"].startswith("old ") for entry in view["to_destroy"]):
        typer.echo("lethe: some of the old data could not be deleted; it is listed", err=True)
        raise typer.Exit(1)


def _view(done: "Compaction", entries: list[dict[str, Any]], destroyed: list[str]) -> dict[str, Any]:
    from service.audit.service import timestamp

    for entry in entries:
        entry["destroy_by"] = timestamp(entry["destroy_by"]) if entry["destroy_by"] is not None else None
    before, after = (
        {
            "id": row.id,
            "path": row.path,
            "digest": row.digest,
            "records": row.records,
            "subjects": row.subjects,
            "holdout_path": row.holdout_path,
            "holdout_digest": row.holdout_digest,
        }
        for row in (done.before, done.after)
    )
    return {
        "model": done.model.name,
        "before": before,
        "dataset": after,
        "removed": done.removed,
        "holdout_removed": done.holdout_removed,
        "tombstones": done.tombstones,
        "destroyed": destroyed,
        "to_destroy": entries,
    }


def _show(view: dict[str, Any]) -> None:
    data, name = view["dataset"], view["model"]
    typer.echo(f"{name}: {data['records']} records in {data['path']}, digest {data['digest']}")
    typer.echo(f"left out: {view['removed']} deleted records, {view['holdout_removed']} of the held-out set")
    typer.echo(
        f"kept: {view['tombstones']} tombstones (record ids alone). While {name} is registered they bar these records "
        "from every training, and refuse copies of old data and old models that hold them."
    )
    for path in view["destroyed"]:
        typer.echo(f"deleted: {path}")
    if view["to_destroy"]:
        typer.echo("\nTo be destroyed, because it holds deleted records or was made from them:")
        rows = [
            (entry["what"], entry["by"], entry["destroy_by"] or "now", entry["path"], entry["note"] or "")
            for entry in view["to_destroy"]
        ]
        print_table(("what", "by", "until", "path", "note"), rows, "")
    typer.echo("\nOther copies (backups, exports, snapshots) are not known to the service; destroy them too.")


@contextmanager
def _bar() -> "Iterator[Watch]":
    """A bar on standard error that counts records looked at, where there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} records read and written"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda records: progress.advance(task, records)
