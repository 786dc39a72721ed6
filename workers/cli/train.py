"""`lethe train`: a model directory by a recipe, with its training record."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, print_json
from workers.cli.common import Columns, Data, Device, Holdout, Seed, digest_of, open_data, running

if TYPE_CHECKING:
    from workers.modeling.observing import LineageFacts

command = typer.Typer(help="Train a model by a recipe.", add_completion=False)


@command.command()
def train(
    recipe: Annotated[Path, typer.Option(help="TOML: model, training.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Directory to write; must not exist.")],
    holdout: Holdout = None,
    columns: Columns = "",
    device: Device = "",
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Train a model and write a Hugging Face directory plus its training record."""
    from dataclasses import replace

    from service.datasets.columns import parse_pairs
    from service.settings import get_settings
    from workers.lineage.canaries import canary_key
    from workers.lineage.prepare import prepare
    from workers.modeling.directories import directory_digest
    from workers.modeling.fresh import Provenance
    from workers.modeling.recipe import load_recipe
    from workers.modeling.train import train_by_recipe

    chosen = load_recipe(recipe)
    task = chosen.model.task
    records = open_data(data, task, columns)
    held_out = open_data(holdout, task, columns) if holdout else None
    provenance = Provenance(
        data_digest=digest_of(data),
        holdout_digest=digest_of(holdout) if holdout and held_out is not None else None,
        columns=parse_pairs(columns, "--columns"),
    )
    number = chosen.training.seed if seed is None else seed
    prepared = prepare(chosen, records, held_out is not None, canary_key(get_settings().home / "keys"))
    with running(device, number, "train") as context:
        recorded = replace(context, recorder=prepared.recorder)
        record = train_by_recipe(chosen, prepared.records, out, number, recorded, provenance)
    told = {"out": str(out), "digest": directory_digest(out), "records": record.records, "steps": record.steps}
    told |= {"seconds": record.seconds, "lineage": record.lineage.model_dump() if record.lineage else None}
    if as_json:
        print_json(told)
    else:
        typer.echo(f"{out}: {record.records} records, {record.steps} steps, {record.seconds:.1f} s")
        typer.echo(_kept(record.lineage))


def _kept(facts: "LineageFacts | None") -> str:
    """What the training left beside the weights, in a line."""
    if facts is None:
        return "no lineage was recorded"
    parts = [f"{facts.checkpoints} checkpoints", f"{facts.bytes / 1e6:.1f} MB"]
    parts += [f"{facts.canaries} canaries planted"] if facts.canaries else []
    parts += [f"{facts.reserved_records} records set aside"] if facts.reserved_records else []
    return f"lineage: {', '.join(parts)}"
