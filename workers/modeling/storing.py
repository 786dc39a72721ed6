"""What a training leaves in its directory: weights, the records that were really seen, and the training record."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.catalogue.recipes import Recipe
from workers.modeling.code_version import code_version, package_versions
from workers.modeling.fresh import Provenance
from workers.modeling.loading import LoadedModel, save_model, weight_files
from workers.modeling.observing import LineageFacts
from workers.modeling.problem import Context
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import Records
from workers.modeling.training import Fitted
from workers.modeling.training_record import (
    TrainingRecord,
    weights_digest,
    write_exposures,
    write_record,
)


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall, CPU) seconds, rounded to milliseconds."""
        return round(time.monotonic() - self._wall, 3), round(time.process_time() - self._cpu, 3)


@dataclass(frozen=True)
class Made:
    """A run that has ended, as its training record will tell it.

    `parts` is the digest of parts.json where the model was trained in parts; `whole_seconds` what a whole training of
    the line takes, where this run took over some of it.
    """

    recipe: Recipe
    records: Records
    tokens: int | None
    seed: int
    provenance: Provenance
    fitted: Fitted
    lineage: LineageFacts | None
    parts: str | None = None
    whole_seconds: float | None = None


def store(loaded: LoadedModel, directory: Path, made: Made, context: Context, clock: Clock) -> TrainingRecord:
    """Write weights and training record of a trained model. Raises JobError for weights that are not finite."""
    save_model(loaded, directory)
    record = _record(directory, made, context)
    record.seconds, record.cost["cpu_seconds"] = clock.read()
    if made.whole_seconds is not None:
        record.seconds = round(made.whole_seconds, 3)
    write_record(directory, record)
    return record


def _record(directory: Path, made: Made, context: Context) -> TrainingRecord:
    recipe, records, fitted = made.recipe, made.records, made.fitted
    seen = np.flatnonzero(fitted.exposures)
    digest = write_exposures(directory, np.asarray(records.ids)[seen], fitted.exposures[seen])
    passes = float(fitted.passes)
    return TrainingRecord(
        task=recipe.model.task,
        recipe=recipe,
        recipe_digest=recipe_digest(recipe),
        data_digest=made.provenance.data_digest,
        holdout_digest=made.provenance.holdout_digest,
        columns=made.provenance.columns or {},
        records=len(seen),
        subjects=len(np.unique(np.asarray(records.subjects)[seen])),
        excluded=made.provenance.excluded,
        seed=made.seed,
        device=str(context.device),
        threads=context.threads,
        precision=recipe.training.precision,
        code_version=code_version(),
        packages=package_versions(),
        weights_digest=weights_digest(weight_files(directory)),
        steps=fitted.steps,
        seconds=0.0,
        cost={"samples": float(fitted.samples), "forward_passes": passes, "backward_passes": passes},
        exposures_digest=digest,
        tokens=made.tokens,
        curve=fitted.curve,
        lineage=made.lineage,
        parts=made.parts,
    )
