"""`qualify`: simulate deletions, measure each against a retrain, and write down what came of it.

Can be killed and started again: finished runs stay in the work directory and are not repeated. The document is dated
by the day the first run was begun, so that going on later does not make it younger than what was measured.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from service.errors import BadParameters, Cancelled
from service.verification.qualification import VALID, Counts, Qualification, SizeClass, judged, rules_digest
from workers.modeling.code_version import code_version, package_versions
from workers.modeling.directories import canonical_json, directory_digest, write_atomic
from workers.modeling.problem import Context, Progress
from workers.modeling.progress import part_of, timed
from workers.modeling.recipe import recipe_digest
from workers.planning.problems import Line
from workers.qualification.costs import Cost, cost_of
from workers.qualification.designs import (
    DUPLICATED,
    LARGEST_SHARE,
    Job,
    Source,
    draw_jobs,
    packed,
    plant_copies,
    seed_of,
)
from workers.qualification.outcome import Run, figures_of
from workers.qualification.runs import Setting, finished, read_run, run_pack, train_planted
from workers.qualification.sources import sources_of
from workers.references.layout import read_table
from workers.references.tables import SideTable

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Simulation:
    """All jobs: those on the model itself, and those on a base with planted copies, in packs that share a retrain."""

    base: list[list[Job]]
    planted: list[list[Job]]
    notes: list[str]

    @property
    def jobs(self) -> list[Job]:
        """Every job."""
        return [job for pack in [*self.base, *self.planted] for job in pack]


def qualify(
    setting: Setting,
    line: Line,
    sizes: Sequence[int],
    repetitions: int,
    context: Context,
    memorization: SideTable | None = None,
    announce: Callable[[Cost], None] | None = None,
) -> Qualification:
    """Run what is not finished of the simulated deletions, and answer the document.

    `memorization`: a side of a reference pool that says which records are memorised. `announce` is told the cost of
    what is left before any of it is begun. Raises BadParameters where there
    are no held-out records, no set fits, or the work directory is another qualification's; Cancelled between two packs;
    and what methods, trainings and evaluations raise.
    """
    if line.held_out is None or not len(line.held_out):
        raise BadParameters("a qualification needs held-out records to compare with: give --holdout")
    facts = facts_of(setting, line, sizes, repetitions)
    begun = _begin(setting, facts)
    simulation, copies = _simulation(setting, line, sizes, repetitions, memorization)
    if announce is not None:
        packs = [*simulation.base, *simulation.planted]
        announce(cost_of(setting, line, packs, len(copies) if copies is not None else 0))
    _work_off(setting, line, copies, simulation, timed(context))
    classes = [found for size in sizes if (found := _class(setting, simulation.jobs, size)) is not None]
    facts |= {"issued": begun, "valid_until": begun + VALID, "records": len(line.people), "classes": classes}
    facts["notes"] = simulation.notes
    del facts["sizes"]
    context.progress(Progress(1.0, 0.0, "measured"))
    return judged(Qualification.model_validate(facts))


def facts_of(setting: Setting, line: Line, sizes: Sequence[int], repetitions: int) -> dict[str, Any]:
    """What a qualification is of, as JSON: everything its numbers follow from."""
    return {
        "task": line.task,
        "method": setting.spec.name,
        "params": setting.params,
        "recipe_digest": recipe_digest(setting.recipe),
        "data_digest": setting.data_digest,
        "holdout_digest": line.given_digest,
        "model_digest": directory_digest(line.base_dir),
        "companions": setting.policy.verification.companions,
        "code_version": code_version(),
        "packages": package_versions(),
        "policy_digest": setting.policy.digest(),
        "rules_digest": rules_digest(setting.policy.model_dump(mode="json")),
        "seed": setting.seed,
        "repetitions": repetitions,
        "sizes": list(sizes),
    }


def _begin(setting: Setting, facts: dict[str, Any]) -> date:
    """The day the first run was begun. BadParameters where the directory holds the runs of something else."""
    path = setting.work / PLAN_FILE
    if path.is_file():
        try:
            stored = json.loads(path.read_bytes())
            begun = date.fromisoformat(stored.pop("begun"))
        except (OSError, ValueError, KeyError) as error:
            raise BadParameters(f"{path}: not the plan of a qualification; choose another --work") from error
        for key, value in facts.items():
            if stored.get(key) != value:
                raise BadParameters(f"{setting.work} holds the runs of another {key.replace('_', ' ')}; choose another")
        return begun
    if setting.work.exists() and any(setting.work.iterdir()):
        raise BadParameters(f"{setting.work} holds something else than a qualification; choose another --work")
    setting.work.mkdir(parents=True, exist_ok=True)
    begun = datetime.now(UTC).date()
    write_atomic(path, canonical_json(facts | {"begun": begun.isoformat()}) + b"\n")
    return begun


def _simulation(
    setting: Setting, line: Line, sizes: Sequence[int], repetitions: int, memorization: SideTable | None
) -> tuple[Simulation, Any]:
    """(the jobs in packs, the copies to plant: None where the data has copies of its own or is too small)."""
    sources, notes = sources_of(line, sizes, memorization)
    records = len(line.people)
    limit = int(LARGEST_SHARE * records)
    jobs, dropped = draw_jobs(sources, sizes, repetitions, records, setting.seed)
    planted: list[Job] = []
    made = None
    if all(source.design != DUPLICATED for source in sources):
        made = plant_copies(line.people, sizes, setting.seed)
    if made is not None:
        copied = Source(DUPLICATED, line.people.ids[line.people.rows_of(made[1])], made[1])
        planted, more = draw_jobs([copied], sizes, repetitions, records, setting.seed)
        dropped += more
        notes.append(f"{DUPLICATED}: copies were planted, on a base model trained with them and without canaries")
    if not jobs:
        raise BadParameters(f"no set of {min(sizes)} records is a tenth of {records} or less; give smaller --sizes")
    simulation = Simulation(packed(jobs, limit), packed(planted, limit), [*notes, *dict.fromkeys(dropped)])
    return simulation, made[0] if made is not None and planted else None


def _work_off(setting: Setting, line: Line, copies: Any, simulation: Simulation, context: Context) -> None:
    packs = [(line, f"base-{at:03d}", pack) for at, pack in enumerate(simulation.base)]
    total = len(packs) + len(simulation.planted) + 1
    if copies is not None and not all(finished(setting, job) for pack in simulation.planted for job in pack):
        other = train_planted(setting, line, copies, part_of(context, 0.0, 1 / total, "base with copies"))
        packs += [(other, f"planted-{at:03d}", pack) for at, pack in enumerate(simulation.planted)]
    for at, (on, name, pack) in enumerate(packs, start=1):
        if context.cancelled():
            raise Cancelled(f"cancelled after {at - 1} of {len(packs)} retrains; the same command goes on from here")
        run_pack(setting, on, name, pack, part_of(context, at / total, (at + 1) / total, f"{at} of {len(packs)}"))


def _class(setting: Setting, jobs: Sequence[Job], size: int) -> SizeClass | None:
    """The class of one size; None where no forget set of it fits the data."""
    wanted = sorted((job for job in jobs if job.size == size), key=lambda job: job.name)
    if not wanted:
        return None
    told = {job.name: read_run(setting, job) for job in wanted}
    whole = [job for job in wanted if "broken" not in told[job.name]]
    runs = [Run(job.design, read_table(setting.work / "runs" / f"{job.name}.arrow")) for job in whole]
    seed, rules = seed_of(setting.seed, "figures", size), setting.policy.verification
    task = setting.recipe.model.task
    designs = sorted({run.design for run in runs})
    return SizeClass(
        size=size,
        runs=len(wanted),
        broken=len(wanted) - len(whole),
        candidate=_counts([told[job.name]["candidate"] for job in whole]),
        retrained=_counts([told[job.name]["retrained"] for job in whole]),
        pooled=figures_of(runs, rules, task, seed),
        designs={name: figures_of([run for run in runs if run.design == name], rules, task, seed) for name in designs},
    )


def _counts(verdicts: Sequence[str]) -> Counts:
    return Counts(
        passed=verdicts.count("pass"),
        failed=verdicts.count("fail"),
        inconclusive=verdicts.count("inconclusive"),
    )
