"""Whether a candidate's training record shows that an exact method was run without the forgotten records.

Weights alone cannot show which data made them (Thudi et al., arXiv 2110.11891); what can be audited is the algorithm
and its inputs. So the record has to name an exact method of the catalogue, list none of the forgotten records, and
agree in every digest with the files beside it and with the original's data and recipe.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.catalogue.methods import METHODS
from service.catalogue.recipes import Recipe
from service.errors import BadModel
from workers.modeling.directories import sha256_file
from workers.modeling.loading import weight_files
from workers.modeling.recipe import recipe_digest
from workers.modeling.training_record import (
    EXPOSURES_FILE,
    TrainingRecord,
    read_exposures,
    read_record,
    weights_digest,
)


@dataclass(frozen=True)
class Provenance:
    """`claimed`: the record names an exact method. `holds`: everything agrees. `reason`: what, or what does not."""

    claimed: bool
    holds: bool
    reason: str


def check_provenance(
    candidate_dir: Path,
    original_dir: Path,
    forget_ids: Collection[str],
    data_ids: Collection[str],
    data_digest: str | None = None,
    recipe: Recipe | None = None,
) -> Provenance:
    """Compare the candidate's record with its files, with the original's data and recipe, and with the forget set.

    `data_digest` and `recipe` are what the caller knows to be those of the line, where it was registered with them or
    the original has no record of its own (a model trained elsewhere); None takes the original's record.
    """
    try:
        record, base = read_record(candidate_dir), read_record(original_dir)
    except BadModel as error:
        return Provenance(True, False, error.detail)
    if record is None:
        return Provenance(False, False, "the candidate has no training record")
    method = _method(record)
    if method not in {spec.name for spec in METHODS if spec.kind == "exact"}:
        return Provenance(False, False, f"{method} is not an exact method")
    wrong = next(_disagreements(candidate_dir, record, forget_ids, data_ids), None)
    wrong = wrong or next(_strangers(record, base, data_digest, recipe), None)
    if wrong:
        return Provenance(True, False, wrong)
    told = f"{method}: none of the {len(forget_ids)} forgotten records was in a batch; all digests agree"
    if base is not None and base.code_version != record.code_version:
        told += f" (code {record.code_version}, the original's was {base.code_version})"
    return Provenance(True, True, told)


def _method(record: TrainingRecord) -> str:
    """The method that made the candidate; training by a recipe without any parent is retraining."""
    if record.unlearning is not None:
        return record.unlearning.method
    return "retrain" if record.parent is None else "an unnamed method"


def _disagreements(
    directory: Path, record: TrainingRecord, forget_ids: Collection[str], data_ids: Collection[str]
) -> Iterator[str]:
    """Where the record, its list of records and the weights beside it do not agree."""
    try:
        if weights_digest(weight_files(directory)) != record.weights_digest:
            yield "the weights are not those that the training record describes"
        exposures = read_exposures(directory)
    except BadModel as error:
        yield error.detail
        return
    if sha256_file(directory / EXPOSURES_FILE) != record.exposures_digest:
        yield f"{EXPOSURES_FILE} is not the one that the training record describes"
    if not {"record_id", "exposures"} <= set(exposures.column_names) or exposures["exposures"].null_count:
        yield f"{EXPOSURES_FILE} does not say how often each record was seen"
        return
    seen = set(exposures["record_id"].to_pylist())
    held = len(seen.intersection(forget_ids))
    if held:
        yield f"{held} of the {len(forget_ids)} forgotten records were in its batches"
    if not seen:
        yield "the training record lists no records"
    foreign = len(seen.difference(data_ids))
    if foreign:
        yield f"{foreign} of its records are not in the data"


def _strangers(
    record: TrainingRecord, base: TrainingRecord | None, data_digest: str | None, recipe: Recipe | None
) -> Iterator[str]:
    """Where data or recipe are not those of the line."""
    data = data_digest or (base.data_digest if base else None)
    rule = recipe_digest(recipe) if recipe else (base.recipe_digest if base else None)
    for name, known, own in (("data", data, record.data_digest), ("recipe", rule, record.recipe_digest)):
        if known is None:
            yield f"the original's {name} digest is not known, so the candidate's cannot be compared with it"
        elif known != own:
            yield f"the candidate was made from another {name} than the original"
