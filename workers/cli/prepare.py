"""`lethe models prepare`: has the workers build a model's reference pool and follows them, or says what it costs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from service.catalogue.recipes import Recipe
    from service.jobs.history import History
    from service.references.service import Wanted
    from service.verification.policy import Policy
    from workers.references.estimate import Estimate, Horizon

ANSWER_DAYS = 30
"""The shortest time in which a regulation wants an answer: so long may requests wait to share a retraining."""

command = typer.Typer(help="Build a model's pool of reference models.", add_completion=False)


@command.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    references: Annotated[
        int | None, typer.Option(help="How many; 16 at least for methods and gate, 8 for the gate alone; default 32.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Queue nothing; say what it would cost.")] = False,
    strategy: Annotated[
        str | None, typer.Option(help="halves (default), or reserved_split: train on reserved people only.")
    ] = None,
    reserved: Annotated[float | None, typer.Option(help="Share of the records for reserved_split; 0.3.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A cheaper recipe; absent: the model's own.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of halves and trainings; absent: drawn.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="End a pool of another kind first.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop the building; what is trained stays.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue the building of the reference pool and follow it; Ctrl-C leaves it running, the same command follows on."""
    from service.cli.db import require_schema
    from service.references import service

    require_schema()
    wanted = _wanted(name, references, strategy, reserved, recipe, seed)
    if estimate:
        _estimate(name, wanted, as_json)
    elif cancel:
        _show(service.cancel(name), as_json)
    else:
        _follow(name, service.prepare(name, wanted, replace=replace), as_json)


def _wanted(
    name: str,
    count: int | None,
    strategy: str | None,
    reserved: float | None,
    recipe: Path | None,
    seed: int | None,
) -> "Wanted":
    """What was asked for, checked. Raises BadParameters, BadRecipe, NotFound."""
    from service.database import reading
    from service.errors import BadParameters
    from service.references.service import Wanted
    from service.registry.recipes import read_recipe
    from service.registry.repository import get_model
    from workers.references.split import sides_of

    if count is not None:
        sides_of(count)
    if strategy not in (None, "halves", "reserved_split"):
        raise BadParameters(f"--strategy {strategy!r} is unknown: use halves or reserved_split")
    if reserved is not None and (strategy != "reserved_split" or not 0 < reserved < 1):
        raise BadParameters("--reserved is a share between 0 and 1, for --strategy reserved_split")
    with reading() as session:
        model = get_model(session, name)
    return Wanted(count, strategy, reserved, read_recipe(recipe, model.task) if recipe else None, seed)


def _follow(name: str, pool_id: str, as_json: bool) -> None:
    from service.cli.pools import follow
    from service.errors import Cancelled, JobError

    try:
        pool = follow(pool_id)
    except KeyboardInterrupt:
        typer.echo(f"It goes on in the background; `lethe models prepare {name}` follows it again.", err=True)
        raise
    if as_json:
        print_json(pool)
    if pool["state"] == "failed":
        raise JobError(f"the pool of {name!r} failed: {pool['error']['detail']}; prepare it again to go on")
    if pool["state"] != "ready":
        raise Cancelled(f"the pool of {name!r} is {pool['state']}")
    if not as_json:
        sides = " and ".join(f"{size} for the {side}" for side, size in pool["sides"].items() if size)
        typer.echo(f"{name}: {pool['count']} references ({sides}) are ready")


def _show(pool_id: str, as_json: bool) -> None:
    from service.cli.pools import describe
    from service.database import reading
    from service.references.progress import view

    with reading() as session:
        pool = view(session, pool_id)
    if as_json:
        print_json(pool)
    else:
        typer.echo(f"{pool['model']}: {describe(pool)}; {pool['done']} of {pool['count']} references are trained")


def _estimate(name: str, wanted: "Wanted", as_json: bool) -> None:
    from service.catalogue.recipes import Recipe
    from service.database import reading
    from service.jobs.history import history_of
    from service.references.service import DEFAULT_COUNT, DEFAULT_RESERVED
    from service.registry import repository
    from service.registry.recipes import recipe_of
    from service.verification.policy import Policy
    from workers.references.estimate import HALF, estimate

    with reading() as session:
        model = repository.get_model(session, name)
        own = recipe_of(model, repository.serving_version(session, model))
        past, policy = history_of(session, model), Policy.model_validate(model.policy)
    strategy: Any = wanted.strategy or "halves"
    reserved = wanted.reserved if wanted.reserved is not None else DEFAULT_RESERVED
    settings = {
        "count": wanted.count if wanted.count is not None else DEFAULT_COUNT,
        "strategy": strategy,
        "share": HALF * reserved if strategy == "reserved_split" else HALF,
        "recipe_cost": _relative_cost(Recipe.model_validate(wanted.recipe) if wanted.recipe else None, own),
    }
    horizon = _horizon(policy, past)
    made = estimate(settings["count"], horizon, strategy, settings["share"], settings["recipe_cost"])
    if as_json:
        head = {"schema": "lethe/references-estimate/1", "model": name, "train_seconds": past.train_seconds}
        print_json(head | settings | {"horizon": asdict(horizon)} | asdict(made))
    else:
        typer.echo(_told(made, horizon, policy, past))


def _relative_cost(given: "Recipe | None", own: "Recipe | None") -> float:
    """Epochs of the given recipe over those of the model's own, which is all that is known without training."""
    return given.training.epochs / own.training.epochs if given is not None and own is not None else 1.0


def _horizon(policy: "Policy", past: "History") -> "Horizon":
    """What is to be expected, from the policy and the model's past; what neither says is named by `_told`."""
    from workers.references.estimate import Horizon

    section, day = policy.references, 86400.0
    days = section.horizon_timedelta.total_seconds() / day
    jobs = section.jobs or past.jobs_within(days)
    patience = ANSWER_DAYS - policy.batch.safety_timedelta.total_seconds() / day
    waits = section.refresh_wait_timedelta.total_seconds() / day
    told: dict[str, Any] = {"exact_every": policy.ladder.approximate_edits}
    if past.job_cost is not None:
        told["job_cost"] = past.job_cost
    if not policy.ladder.approximate_edits or not policy.ladder.approximate_attempts:
        told["job_cost"] = 1.0  # every job is exact
    return Horizon(
        jobs=jobs,
        subjects_per_job=max(past.subjects_per_job or 1.0, float(policy.batch.min_subjects)),
        jobs_per_refresh=max(1.0, jobs * waits / days),
        jobs_per_retrain=max(1.0, jobs * max(patience, 0.0) / days),
        **told,
    )


def _told(made: "Estimate", horizon: "Horizon", policy: "Policy", past: "History") -> str:
    source = "the policy says so" if policy.references.jobs else f"{past.jobs} in {past.days:.0f} days so far"
    if not policy.references.jobs and not past.jobs:
        source = "one a month, since there were none so far"
    lines = [
        made.sentence,
        f"Expected in {policy.references.horizon}: {horizon.jobs:.3g} deletion jobs ({source}), people in "
        f"each: {horizon.subjects_per_job:.3g}, an approximate one at {horizon.job_cost:.2g} retrains; "
        f"{horizon.jobs_per_refresh:.3g} share a refresh, {horizon.jobs_per_retrain:.3g} could share a retraining "
        f"before their deadlines.",
    ]
    if past.train_seconds is not None:
        hours = made.prepare * past.train_seconds / 3600
        lines.append(f"One retrain took {past.train_seconds:.0f} s here: preparing takes {hours:.2g} h of one worker.")
    return "\n".join(lines)
