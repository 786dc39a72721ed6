"""What a qualification takes before it is begun: trainings, runs, and hours where a training of the model was timed."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.verification.equivalence import records_needed
from service.verification.qualification import AUC_MARGIN
from workers.modeling.training_record import read_record
from workers.planning.choice import USUAL_SHARE
from workers.planning.evaluation import RETAIN_SAMPLE
from workers.planning.problems import Line
from workers.qualification.designs import Job
from workers.qualification.runs import ROUNDED, Setting, finished

_PASSES_OF_A_STEP = 3
"""A training step is a forward and a backward pass, and the latter costs two of the former."""
_SCORED = 3
"""Models that are scored in a run: original, candidate, retrain. The last two are scored rounded as well."""
_NEEDED = records_needed(AUC_MARGIN) or 0
_RUN_SECONDS = 0.2
"""Loading and saving models, and the attacks, beside every pass."""


@dataclass(frozen=True)
class Cost:
    """What is left to do: `trainings` by the recipe, `runs` of the method with their evaluations.

    `seconds` for all of it, None where no training of the model was timed. `hopeless`: sizes whose records are too few
    for the AUC's interval to lie within its margin, by the number of records that they have.
    """

    trainings: int
    runs: int
    seconds: float | None
    hopeless: dict[int, int]

    @property
    def sentences(self) -> list[str]:
        """For the person who waits."""
        time = f"about {_duration(self.seconds)}" if self.seconds is not None else "no training of this model was timed"
        told = [f"{self.runs} simulated deletions beside {self.trainings} trainings are left to run: {time}"]
        for size, records in self.hopeless.items():
            few = f"{records} records in all are likely too few"
            told.append(f"size {size}: {few}, an AUC known within {AUC_MARGIN:g} takes some {_NEEDED}")
        return told


def cost_of(setting: Setting, line: Line, packs: Sequence[Sequence[Job]], copies: int) -> Cost:
    """The cost of what is not finished of these packs, each of which shares a retrain; `copies` planted beside people.

    A share of a training for the method as in the ladder's estimates, and one for the passes of an evaluation.
    """
    left = [[job for job in pack if not finished(setting, job)] for pack in packs]
    runs = sum(map(len, left))
    trainings = sum(1 for pack in left if pack)
    if copies and not (setting.work / "planted").is_dir():
        trainings += 1
    record = read_record(line.base_dir)
    seconds = None
    if record is not None:
        own = record.recipe.training.epochs if record.recipe else setting.recipe.training.epochs
        training = record.seconds * setting.recipe.training.epochs / own
        share = USUAL_SHARE if setting.spec.kind == "approximate" else 1.0
        seconds = training * (trainings + runs * (share + _evaluation_share(setting, line))) + runs * _RUN_SECONDS
    sizes = sorted({job.size for pack in packs for job in pack})
    records = {size: size * sum(job.size == size for pack in packs for job in pack) for size in sizes}
    few = {size: total for size, total in records.items() if total < _NEEDED}
    return Cost(trainings, runs, seconds, few)


def _evaluation_share(setting: Setting, line: Line) -> float:
    """Forward passes of an evaluation, as a share of one training's passes."""
    people = len(line.people)
    compared = len(line.held_out) if line.held_out is not None else 0
    scored = _SCORED * (min(people, RETAIN_SAMPLE) + compared) + (_SCORED - 1) * len(ROUNDED) * compared
    return scored / (_PASSES_OF_A_STEP * setting.recipe.training.epochs * people)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(seconds, 1.0):.0f} seconds"
