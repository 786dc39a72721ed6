"""`lethe references`: a pool of reference models, without the service; or what it would cost."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import AsJson, print_json
from workers.cli.common import (
    Columns,
    Data,
    Device,
    Holdout,
    Model,
    Seed,
    TaskName,
    digest_of,
    needed_recipe,
    open_data,
    running,
)

if TYPE_CHECKING:
    from service.catalogue.recipes import Recipe
    from service.datasets.records import RecordTable
    from workers.references.layout import Pool
    from workers.references.members import Materials

SCHEMA = "lethe/references/1"
STRATEGIES = ("halves", "reserved_split")

command = typer.Typer(help="Build a pool of reference models, without the service.", add_completion=False)


@command.command()
def references(
    model: Model,
    task: TaskName,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Directory of the pool; one that was begun is gone on with.")] = None,
    holdout: Holdout = None,
    recipe: Annotated[Path | None, typer.Option(help="For models trained elsewhere, or a cheaper one.")] = None,
    count: Annotated[int, typer.Option(help="How many; 16 at least for methods and gate, 8 for the gate alone.")] = 32,
    strategy: Annotated[str, typer.Option(help="halves, or reserved_split: train on reserved people only.")] = "halves",
    reserved: Annotated[float, typer.Option(help="Share of the records that reserved_split trains on.")] = 0.3,
    columns: Columns = "",
    device: Device = "",
    seed: Seed = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Train nothing; say what it would cost.")] = False,
    jobs: Annotated[float, typer.Option(help="For --estimate: deletion jobs expected in the horizon.")] = 12,
    subjects_per_job: Annotated[float, typer.Option(help="For --estimate: people deleted in a job.")] = 1,
    job_cost: Annotated[float, typer.Option(help="For --estimate: an approximate job, in retrains.")] = 0.1,
    jobs_per_refresh: Annotated[float, typer.Option(help="For --estimate: jobs that share one refresh.")] = 1,
    jobs_per_retrain: Annotated[float, typer.Option(help="For --estimate: jobs that could share one retraining.")] = 1,
    recipe_cost: Annotated[
        float | None, typer.Option(help="For --estimate: --recipe relative to the model's own; default by epochs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train references on subject-disjoint halves of the data and score every record; run again to go on."""
    from workers.references.estimate import Horizon
    from workers.references.pool import build_pool

    _check_strategy(strategy)
    chosen = needed_recipe(recipe, model)
    if estimate:
        horizon = Horizon(jobs, subjects_per_job, job_cost, jobs_per_refresh, jobs_per_retrain)
        cost = recipe_cost if recipe_cost is not None else _relative_cost(chosen, model)
        _estimate(count, horizon, strategy, reserved, cost, as_json)
        return
    directory = _given(out)
    materials = _materials(model, task, data, holdout, chosen, columns)
    number = chosen.training.seed if seed is None else seed
    with running(device, number, "references") as context:
        pool = build_pool(directory, materials, context, count, reserved if strategy == STRATEGIES[1] else None)
    _show(_told(pool), as_json)


def _check_strategy(strategy: str) -> None:
    from service.errors import BadParameters

    if strategy not in STRATEGIES:
        raise BadParameters(f"--strategy {strategy!r} is unknown: use {' or '.join(STRATEGIES)}")


def _materials(model: Path, task: str, data: Path, holdout: Path | None, recipe: "Recipe", columns: str) -> "Materials":
    from service.datasets.columns import parse_pairs
    from workers.planning.problems import open_line
    from workers.references.members import Materials

    held_out = open_data(holdout, task, columns) if holdout else None
    people = open_data(data, task, columns)
    line = open_line(model, task, people, held_out, digest_of(holdout) if holdout else None)
    return Materials(
        model_dir=model,
        data=_trained_on(model, people),
        held_out=line.held_out,
        recipe=recipe,
        data_digest=digest_of(data),
        holdout_digest=line.holdout_digest,
        columns=parse_pairs(columns, "--columns"),
    )


def _trained_on(model: Path, records: "RecordTable") -> "RecordTable":
    """The records that the model has really seen: references must not bring back deleted or reserved ones."""
    import numpy as np

    from service.errors import BadParameters
    from workers.modeling.training_record import RECORD_FILE, read_exposures

    if not (model / RECORD_FILE).is_file():
        return records
    seen = np.isin(records.ids, np.array(read_exposures(model)["record_id"].to_pylist(), dtype=str))
    if not seen.any():
        raise BadParameters(f"--data holds none of the records that {model} was trained on")
    return records.subset(np.flatnonzero(seen).tolist())


def _given(out: Path | None) -> Path:
    from service.errors import BadParameters

    if out is None:
        raise BadParameters("--out is missing: the directory of the pool")
    return out


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    sides = " and ".join(f"{size} for the {side}" for side, size in told["references"].items() if size)
    records = f"{told['records']} records, {told['held_out']} held out"
    typer.echo(f"{told['out']}: {told['count']} references ({sides}), {records}")


def _told(pool: "Pool") -> dict[str, Any]:
    facts = pool.facts
    return {
        "schema": SCHEMA,
        "out": str(pool.directory),
        "task": facts.task,
        "count": facts.count,
        "strategy": facts.strategy,
        "seed": facts.seed,
        "references": {side: 2 * len(pairs) for side, pairs in facts.sides.items()},
        "out_references_per_record": {side: len(pairs) for side, pairs in facts.sides.items()},
        "records": facts.split.records,
        "held_out": facts.split.held_out,
        "recipe_digest": facts.recipe_digest,
        "data_digest": facts.data_digest,
        "seconds": round(sum(member.seconds for member in facts.members), 3),
    }


def _relative_cost(recipe: "Recipe", model: Path) -> float:
    """Epochs of the given recipe over those of the model's own, which is all that is known without training."""
    from workers.modeling.training_record import read_record

    record = read_record(model)
    own = record.recipe if record else None
    return recipe.training.epochs / own.training.epochs if own else 1.0


def _estimate(count: int, horizon: Any, strategy: Any, reserved: float, recipe_cost: float, as_json: bool) -> None:
    from workers.references.estimate import HALF, estimate

    share = HALF * reserved if strategy == "reserved_split" else HALF
    made = estimate(count, horizon, strategy, share, recipe_cost)
    if as_json:
        settings = {"count": count, "strategy": strategy, "share": share, "recipe_cost": recipe_cost}
        print_json({"schema": "lethe/references-estimate/1"} | settings | {"horizon": asdict(horizon)} | asdict(made))
    else:
        typer.echo(made.sentence)
