"""What each exact method would cost for one forget set, as a share of training once; no torch.

The figures come from what the training recorded: which step or which part first met a forgotten record.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from service.catalogue.recipes import Recipe
from service.errors import MethodRefused
from workers.lineage.facts import affected_parts, first_exposure, kept_slices, read_facts


@dataclass(frozen=True)
class ExactOption:
    """One exact method that this model line allows. `share` of one training; `why` tells where it comes from."""

    method: str
    share: float
    why: str


def exact_options(base_dir: Path, recipe: Recipe | None, forget_ids: Collection[str]) -> list[ExactOption]:
    """The exact methods for a forget set, cheapest first; empty without a recipe.

    The last resort, training again, is always among them: as `refit` where the recipe starts from a public base.
    """
    if recipe is None:
        return []
    again = "refit" if recipe.model.base is not None else "retrain"
    options = [ExactOption(again, 1.0, "training again, whatever is lost of the lineage")]
    for estimate in (_replay, _parts):
        try:
            found = estimate(base_dir, recipe, forget_ids)
        except MethodRefused:
            continue  # a lineage that cannot be read is of no use to the method either
        options += [found] if found is not None else []
    return sorted(options, key=lambda option: option.share)


def _replay(base_dir: Path, recipe: Recipe, forget_ids: Collection[str]) -> ExactOption | None:
    facts = read_facts(base_dir)
    if facts is None or recipe.sharding.on or recipe.adapters is not None or facts.steps < 1:
        return None
    # What would be refused for certain, or nearly so, is no option: a tokenizer made from the data hardly ever stays.
    if facts.device != "cpu" or recipe.training.precision != "fp32" or recipe.data_tokenizer:
        return None
    first = first_exposure(base_dir, forget_ids)
    first = facts.steps if first is None else first
    begin = max((point.step for point in facts.checkpoints if point.step <= first), default=0)
    share = (facts.steps - begin) / facts.steps
    return ExactOption("replay", share, f"first met in step {first} of {facts.steps}, repeated from step {begin}")


def _parts(base_dir: Path, recipe: Recipe, forget_ids: Collection[str]) -> ExactOption | None:
    found = affected_parts(base_dir, forget_ids) if recipe.sharding.on or recipe.adapters is not None else None
    if found is None:
        return None
    first, parts, slices = found
    kept = kept_slices(base_dir)
    # Stage i of R (from 0) trains on i + 1 slices; it goes on from the last state kept before the slice that lost one.
    whole = slices * (slices + 1) / 2
    work = 0.0
    for part, piece in first.items():
        begin = max((known + 1 for known in kept.get(part, ()) if known < piece), default=0)
        work += 1 - begin * (begin + 1) / 2 / whole
    name, kind = ("sharded", "shards") if recipe.sharding.on else ("adapter", "adapters")
    return ExactOption(name, work / parts, f"{len(first)} of {parts} {kind} hold a forgotten record")
