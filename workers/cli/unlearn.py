"""`lethe unlearn`: the engine without the service, for an ML engineer at a shell."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import AsJson, print_json
from workers.cli.common import (
    Columns,
    Data,
    Device,
    Holdout,
    Params,
    Pool,
    RecipeFile,
    Seed,
    TaskName,
    choose_recipe,
    digest_of,
    gate_references,
    line_of,
    open_data,
    parse_params,
    read_ids,
    running,
)

if TYPE_CHECKING:
    from service.verification.policy import Policy
    from service.verification.qualification import Qualification
    from service.verification.statistics import NotMeasurable
    from workers.modeling.problem import Context, Problem
    from workers.planning.attempt import AttemptResult
    from workers.planning.calibrated import References
    from workers.planning.problems import Line

SCHEMA = "lethe/unlearning/1"

command = typer.Typer(help="Make a model directory forget records, without the service.", add_completion=False)


Corrected = Annotated[
    Path | None, typer.Option("--replace", help="Records of --forget as they should be: corrected, not deleted.")
]


@command.command()
def unlearn(
    model: Annotated[Path, typer.Option(help="The model directory to start from.")],
    task: TaskName,
    data: Data,
    forget: Annotated[Path, typer.Option(help="Record ids, one a line.")],
    method: Annotated[str, typer.Option(help="A name from `lethe methods`, or auto for the ladder and the gate.")],
    out: Annotated[Path, typer.Option(help="Directory to write; must not exist.")],
    holdout: Holdout = None,
    params: Params = "{}",
    recipe: RecipeFile = None,
    policy: Annotated[Path | None, typer.Option(help="TOML: ladder and gate of auto, canaries of an edit.")] = None,
    references: Pool = None,
    qualification: Annotated[
        Path | None, typer.Option(help="For auto: a document of `lethe qualify`, beside those of the home.")
    ] = None,
    corrected: Corrected = None,
    columns: Columns = "",
    device: Device = "",
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Run one method, or with --method auto the service's ladder and gate; exit 0 when a candidate was written."""
    from service.verification.policy import load_policy
    from workers.planning.problems import build_problem

    chosen = _params(method, params)
    _refuse_useless(references, corrected, method)
    documents = _qualifications(qualification, method)
    line = line_of(model, task, data, holdout, columns)
    rules = load_policy(policy)
    companions = rules.verification.companions if _edits(method) else None
    asked = read_ids(forget), choose_recipe(recipe, model), digest_of(data), _pairs(columns)
    problem = build_problem(line, *asked, companions)
    if references is not None:
        problem = _with_references(problem, references, holdout, method)
    problem = _with_corrections(problem, corrected, columns)
    with running(device, _seed(seed, problem), method) as context:
        if method == "auto":
            gate = gate_references(references, task, data, holdout)
            told = _climb(problem, line, context, rules, out, gate, documents)
        else:
            state = _state_folder(out, problem, references, corrected)
            told = _attempt(method, chosen, problem, replace(context, scratch=state), out)
    if as_json:
        print_json(told)
    else:
        typer.echo(_sentence(told))
    if not told.get("out"):
        raise typer.Exit(1)


def _attempt(method: str, params: dict[str, Any], problem: "Problem", context: "Context", out: Path) -> dict[str, Any]:
    """Run a single method; the state that it kept goes once the candidate is there."""
    from workers.planning.attempt import run_attempt

    told = _described(run_attempt(method, params, problem, context, out))
    if context.scratch is not None:
        shutil.rmtree(context.scratch, ignore_errors=True)
    return told


def _state_folder(out: Path, problem: "Problem", references: Path | None, corrected: Path | None) -> Path:
    """Where a long edit keeps its state beside `out`; its name says what it is made from, for nothing else to read it.

    A command that was interrupted and is given again goes on from there.
    """
    from workers.modeling.code_version import code_version
    from workers.modeling.directories import directory_digest, sha256_json
    from workers.modeling.recipe import recipe_digest

    made_from = [
        code_version(),
        directory_digest(problem.base_dir),
        problem.data_digest,
        problem.holdout_digest,
        problem.columns,
        recipe_digest(problem.recipe) if problem.recipe is not None else None,
        str(references.resolve()) if references is not None else None,
        digest_of(corrected) if corrected is not None else None,
    ]
    return out.with_name(f".{out.name}.state-{sha256_json(made_from)[-12:]}")


def _edits(method: str) -> bool:
    """Whether it edits the weights as they are, instead of training again."""
    from service.catalogue.methods import find_method

    return method != "auto" and find_method(method).kind == "approximate"


def _seed(given: int | None, problem: "Problem") -> int:
    if given is not None:
        return given
    return problem.recipe.training.seed if problem.recipe else 0


def _params(method: str, text: str) -> dict[str, Any]:
    """The method's parameters, before any data is read. Raises BadParameters for an unknown method too."""
    from service.catalogue.methods import find_method

    if method != "auto":
        find_method(method)
    return parse_params(text)


def _refuse_useless(references: Path | None, corrected: Path | None, method: str) -> None:
    """A pool is for the gate, which only `auto` runs, and for methods that need one; few methods take corrections."""
    from service.catalogue.methods import find_method
    from service.errors import BadParameters

    spec = find_method(method) if method != "auto" else None
    if references is not None and spec is not None and "references" not in spec.needs:
        raise BadParameters(f"--references: {method} uses no reference pool; leave it out")
    if corrected is not None and (spec is None or not spec.corrects):
        raise BadParameters(f"--replace: {method} deletes records and cannot correct them; influence can")


def _with_corrections(problem: "Problem", corrected: Path | None, columns: str) -> "Problem":
    """The problem with the records as they should be, where some are given."""
    if corrected is None:
        return problem
    return replace(problem, replacements=open_data(corrected, problem.task_name, columns))


def _qualifications(given: Path | None, method: str) -> "list[Qualification]":
    """The document given and those of the home; no single method asks for one. Raises BadParameters."""
    from service.errors import BadParameters
    from service.settings import get_settings
    from service.verification.qualification import load_folder, load_qualification

    if given is not None and method != "auto":
        raise BadParameters("--qualification: only the ladder of --method auto asks for one; leave it out")
    own = [load_qualification(given)] if given is not None else []
    return [*own, *load_folder(get_settings().home / "qualifications")] if method == "auto" else []


def _with_references(problem: "Problem", references: Path, holdout: Path | None, method: str) -> "Problem":
    """The problem with the methods' side of a pool. The ladder goes without where all of the pool is the gate's."""
    from workers.references.pool import open_pool
    from workers.references.tables import load_side

    pool = open_pool(references, problem.task_name, problem.data_digest, digest_of(holdout) if holdout else None)
    if method == "auto" and not pool.facts.sides["method"]:
        return problem
    return replace(problem, references=load_side(pool, "method"))


def _pairs(columns: str) -> dict[str, str]:
    from service.datasets.columns import parse_pairs

    return parse_pairs(columns, "--columns")


_TOLD = (
    "method", "params", "seed", "seconds", "cpu_seconds", "peak_memory_bytes", "forward_passes", "backward_passes",
    "steps", "records", "out", "digest", "notes",
)  # fmt: skip


def _described(result: "AttemptResult") -> dict[str, Any]:
    return {"schema": SCHEMA} | {key: getattr(result, key) for key in _TOLD}


def _climb(
    problem: "Problem",
    line: "Line",
    context: "Context",
    policy: "Policy",
    out: Path,
    references: "References | NotMeasurable",
    documents: "list[Qualification]",
) -> dict[str, Any]:
    """The ladder of the service: each rung from the base weights, judged, until one passes."""
    from workers.planning.climb import climb

    climbed = climb(problem, line, policy, context, out, references, documents)
    best = _described(climbed.passed) if climbed.passed else {"schema": SCHEMA, "out": None}
    return best | {"method": "auto", "plan": climbed.plan.model_dump(mode="json"), "attempts": climbed.attempts}


def _sentence(told: dict[str, Any]) -> str:
    if not told.get("out"):
        return "No candidate passed the gate; nothing was written."
    return f"{told['out']}: {told['method']}, {told['records']} records, {told['seconds']:.1f} s"
