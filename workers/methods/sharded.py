"""Sharded: retrain only the shards that held a forgotten record, from the slice that held it.

SISA (Bourtoule et al. 2021, arXiv 1912.03817). A shard goes on from its last state before the first slice with a
forgotten record, without those records; other shards and earlier slices are taken over byte for byte. Exact: byte for
byte what training the retained records with the same assignment of subjects to shards and slices gives. The assignment
is that of the first training (subjects in the order of a keyed hash, the emptiest shard first), so who else was there
then still shows in who shares a shard with whom, and in nothing else.

Needs a model trained with `[sharding]` and its parts. Costs the affected share of the shards; with as many scattered
records as shards it saves little. Refused, never run as an approximation, where parts, data, recipe or a tokenizer
made from the data are not what the shards were trained with.
"""

from pathlib import Path

from service.catalogue.families.exact import ShardedParams
from service.errors import MethodRefused
from workers.modeling.ensembles import read_ensemble
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.sharding import retrain_shards


def sharded(problem: Problem, params: ShardedParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model without the forgotten records. Raises MethodRefused where it cannot be exact."""
    if problem.recipe is None or not problem.recipe.sharding.on:
        raise MethodRefused("the model was not trained in shards: its recipe has no [sharding]")
    record, job = retrain_shards(problem, out_dir, context, params.start == "beginning")
    touched = len(job.inherited.first) if job.inherited is not None else 0
    notes = [f"{touched} of {job.parts} shards held a forgotten record; the others are unchanged, byte for byte"]
    ensemble = read_ensemble(out_dir)
    if ensemble is not None:
        notes.append(f"published as {len(ensemble.members)} shards: {ensemble.reason}")
    passes = int(record.cost["forward_passes"])
    return Outcome(record.steps, passes, passes, record.curve, exact=True, notes=notes)
