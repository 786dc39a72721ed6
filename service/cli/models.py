"""`lethe models`: registered models, straight in the database, audited as "local"."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from service.cli.db import require_schema
from service.cli.lazy import Lazy, LazyGroup
from service.cli.output import AsJson, print_json, print_table


class _Models(LazyGroup):
    table: ClassVar = {
        "prepare": Lazy("entry:prepare", "Build a model's pool of reference models, or say what it would cost."),
        "serve": Lazy("entry:serve", "Run the reference inference server of a model."),
    }


command = typer.Typer(cls=_Models, help="Register, prepare, list and serve models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the model.")]


@command.command()
def register(
    name: Name,
    path: Annotated[Path, typer.Option(help="Hugging Face directory, safetensors only.")],
    task: Annotated[str, typer.Option(help="image-classification, text-classification or causal-lm.")],
    data: Annotated[Path, typer.Option(help="What it was trained on: Parquet, JSONL, CSV or a folder of parts.")],
    holdout: Annotated[Path | None, typer.Option(help="Records it has never seen.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="How it is trained; else from its training record.")] = None,
    policy: Annotated[Path | None, typer.Option(help="TOML; absent: the default, or the one it has.")] = None,
    columns: Annotated[str, typer.Option(help="role=COLUMN,... where the names differ.")] = "",
    identifiers: Annotated[str, typer.Option(help="type=COLUMN,... such as email=mail.")] = "",
    serve_precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, int8 or int4: what `serve` rounds to; absent: fp32, or as before.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register version 1 of a model, or add a version that was made elsewhere."""
    from service.datasets.columns import parse_pairs
    from service.registry.service import register_model

    require_schema()
    version = register_model(
        name,
        path,
        task,
        data,
        holdout=holdout,
        recipe=recipe,
        policy=policy,
        columns=parse_pairs(columns, "--columns"),
        identifiers=parse_pairs(identifiers, "--identifiers"),
        serve_precision=serve_precision,
    )
    if as_json:
        print_json(_version(name, version.number))
    else:
        typer.echo(f"{name} serves version {version.number}, digest {version.digest}")


def _version(name: str, number: int) -> dict[str, Any]:
    from service.database import reading
    from service.registry import service
    from service.registry.schemas import version_view

    with reading() as session:
        model = service.get_model(session, name)
        numbers = {row.id: row.number for row in service.versions(session, model.id)}
        return version_view(model, service.get_version(session, model, number), numbers, whole=True)


@command.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the registered models."""
    from service.database import reading
    from service.datasets.models import Dataset
    from service.registry import service
    from service.registry.models import Version
    from service.registry.schemas import model_view
    from service.registry.standing import references_view

    require_schema()
    with reading() as session:
        items = [
            model_view(
                model,
                session.get_one(Dataset, model.dataset_id),
                session.get(Version, model.serving_version_id) if model.serving_version_id else None,
                references_view(session, model.id),
            )
            for model in service.list_models(session)
        ]
    if as_json:
        print_json({"items": items})
        return
    rows = [
        (
            item["name"],
            item["task"],
            item["serving"]["number"] if item["serving"] else None,
            item["serving"]["digest"][:12] if item["serving"] else None,
            item["dataset"]["records"],
            item["dataset"]["subjects"],
        )
        for item in items
    ]
    headers = ("name", "task", "version", "digest", "records", "subjects")
    print_table(headers, rows, "There are no models; register one with `lethe models register`.")


@command.command()
def versions(name: Name, as_json: AsJson = False) -> None:
    """List the versions of a model, newest first."""
    from service.database import reading
    from service.registry import service
    from service.registry.schemas import version_view

    require_schema()
    with reading() as session:
        model = service.get_model(session, name)
        rows = service.versions(session, model.id)
    numbers = {row.id: row.number for row in rows}
    items = [version_view(model, row, numbers) for row in rows]
    if as_json:
        print_json({"items": items})
        return
    headers = ("number", "state", "digest", "method", "verdict", "grade", "created_at", "destroy_by")
    cells = [[item[key][:12] if key == "digest" else item[key] for key in headers] for item in items]
    print_table(headers, cells, "The model has no versions.")
