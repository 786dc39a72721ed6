"""What has to be decided before a training begins: who stays out of it, and which canaries go in."""

from dataclasses import dataclass
from functools import partial

from service.catalogue.recipes import Recipe
from workers.lineage.canaries import CanarySet, plant_canaries
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.reserve import split_reserve
from workers.modeling.observing import RecorderFactory
from workers.modeling.records import Records, joined

RESERVE_SHARE = 0.03


@dataclass(frozen=True)
class Prepared:
    """A training that may begin: its records (canaries among them), what stays out, and what will keep its lineage."""

    records: Records
    reserve: Records
    canaries: CanarySet | None
    recorder: RecorderFactory


def prepare(recipe: Recipe, data: Records, has_held_out: bool, key: bytes) -> Prepared:
    """Draw the reserve and the canaries of a training, both by coins under `key` (32 bytes).

    Without a held-out set a share of the subjects is never trained on, so that there is something to compare with.
    """
    section = recipe.lineage
    share = RESERVE_SHARE if section.reserve == "auto" and not has_held_out else section.reserve
    people, reserve = split_reserve(data, share, key) if isinstance(share, float) else (data, data.subset([]))
    canaries = plant_canaries(people, section.canaries, key) if isinstance(section.canaries, float) else None
    records = joined(people, canaries.inside) if canaries is not None else people
    reserved = [str(name) for name in reserve.ids]
    return Prepared(records, reserve, canaries, partial(TrainingRecorder, canaries=canaries, reserved=reserved))
