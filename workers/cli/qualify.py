"""`lethe qualify`: how a method does on simulated deletions, as a dated document with its digest."""

import json
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
    Params,
    PolicyFile,
    Pool,
    RecipeFile,
    TaskName,
    crashes_apart,
    digest_of,
    line_of,
    needed_recipe,
    parse_params,
    running,
)

if TYPE_CHECKING:
    from service.verification.qualification import Qualification
    from workers.planning.problems import Line
    from workers.qualification.costs import Cost
    from workers.qualification.runs import Setting
    from workers.references.tables import SideTable

EXITS = {"qualified": 0, "not qualified": 1, "inconclusive": 3}

command = typer.Typer(help="Measure a method on simulated deletions.", add_completion=False)


@command.command()
def qualify(
    model: Model,
    task: TaskName,
    data: Data,
    method: Annotated[str, typer.Option(help="A name from `lethe methods`.")],
    holdout: Holdout = None,
    params: Params = "{}",
    sizes: Annotated[
        str, typer.Option(help="Records in a forget set, such as 10,100; absent: what the policy lets be tried.")
    ] = "",
    repetitions: Annotated[int, typer.Option(min=1, max=1000, help="Deletions of each size and design.")] = 20,
    out: Annotated[Path | None, typer.Option(help="File to write; absent: where jobs look for it.")] = None,
    work: Annotated[Path | None, typer.Option(help="Directory of the runs; one that was begun is gone on with.")] = (
        None
    ),
    recipe: RecipeFile = None,
    policy: PolicyFile = None,
    references: Pool = None,
    columns: Columns = "",
    device: Device = "",
    seed: Annotated[int, typer.Option(min=0, help="Of forget sets and trainings.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Qualify a method: exit 0 qualified, 1 not, 3 inconclusive, 4 could not be measured, 2 bad usage.

    Run the same command again to go on after an interruption.
    """
    with crashes_apart("qualify"):
        from service.verification.policy import load_policy
        from workers.qualification.designs import default_sizes
        from workers.qualification.document import qualify as measured

        given, chosen, rules = _sizes(sizes), needed_recipe(recipe, model), load_policy(policy)
        line = line_of(model, task, data, holdout, columns)
        wanted = given or default_sizes(rules.verification, len(line.people))
        sides = _sides(references, task, data, holdout)
        source = chosen, rules, digest_of(data), columns
        setting = _setting(method, params, source, seed, sides.get("method"), work)
        if work is None:
            setting = _at_home(setting, line, wanted, repetitions)
        with running(device, seed, f"qualify {method}") as context:
            found = measured(setting, line, wanted, repetitions, context, sides.get("gate"), _announce)
        path = _write(found, out)
    _show(found, path, as_json)
    raise typer.Exit(EXITS[found.verdict])


def _announce(cost: "Cost") -> None:
    """On standard error, before anything is begun: whoever types this should know how long it will take."""
    for sentence in cost.sentences:
        typer.echo(f"lethe: {sentence}", err=True)


def _sizes(text: str) -> list[int]:
    """The sizes asked for; none for an empty text."""
    from service.errors import BadParameters

    if not text.strip():
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise BadParameters(f"--sizes {text!r}: write numbers of records such as 1,10,100")
    return sorted({int(word) for word in words})


def _sides(pool: Path | None, task: str, data: Path, holdout: Path | None) -> "dict[str, SideTable]":
    """The tables of a pool by side; none without a pool."""
    from workers.references.pool import open_pool
    from workers.references.tables import load_side

    if pool is None:
        return {}
    opened = open_pool(pool, task, digest_of(data), digest_of(holdout) if holdout else None)
    return {side: load_side(opened, side) for side, pairs in opened.facts.sides.items() if pairs}


def _setting(
    method: str, params: str, source: tuple[Any, Any, str, str], seed: int, table: "SideTable | None", work: Path | None
) -> "Setting":
    from service.catalogue.methods import find_method
    from service.datasets.columns import parse_pairs
    from workers.planning.parameters import full_params
    from workers.qualification.runs import Setting

    recipe, policy, data_digest, columns = source
    spec = find_method(method)
    return Setting(
        spec=spec,
        params=full_params(spec, parse_params(params)),
        policy=policy,
        recipe=recipe,
        data_digest=data_digest,
        columns=parse_pairs(columns, "--columns"),
        seed=seed,
        work=work or Path(),
        references=table,
    )


def _at_home(setting: "Setting", line: "Line", sizes: list[int], repetitions: int) -> "Setting":
    """A work directory of its own for everything that is qualified: the same command finds it again."""
    from dataclasses import replace

    from workers.modeling.directories import sha256_json
    from workers.qualification.document import facts_of

    name = sha256_json(facts_of(setting, line, sizes, repetitions))[:16]
    return replace(setting, work=_folder() / f"work-{name}")


def _folder() -> Path:
    from service.settings import get_settings

    return get_settings().home / "qualifications"


def _write(found: "Qualification", out: Path | None) -> Path:
    from workers.modeling.directories import write_atomic

    path = out or _folder() / f"{found.digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(found.as_json(), indent=2, sort_keys=True).encode() + b"\n")
    return path


def _show(found: "Qualification", path: Path, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    for one in found.classes:
        typer.echo(f"{one.size} records, {one.runs} runs: {one.verdict} ({one.reason})")
    typer.echo(f"{path}: {found.method} is {found.verdict}, valid until {found.valid_until}, digest {found.digest}")
