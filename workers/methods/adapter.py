"""Adapter: train again only the adapters of the cohorts that held a forgotten record, and take the mean anew.

One LoRA adapter (Hu et al. 2021, arXiv 2106.09685) for each cohort of subjects, on a frozen base; what is served is the
base plus their mean. An adapter whose cohort has no record left is dropped; the others are taken over byte for byte.
Exact for what was learnt on top of the base: byte for byte what training the retained records with the same cohorts
gives. What the base learnt elsewhere stays, as with `refit`.

Needs a model trained with `[adapters]` and its parts. Costs the affected share of the cohorts. Refused, never run as an
approximation, where parts, data, recipe or a tokenizer made from the data are not what the adapters were trained with.
"""

from pathlib import Path

from service.catalogue.families.exact import AdapterParams
from service.errors import MethodRefused
from workers.modeling.adapters import retrain_adapters
from workers.modeling.problem import Context, Outcome, Problem


def adapter(problem: Problem, params: AdapterParams, context: Context, out_dir: Path) -> Outcome:
    """Write the model without the forgotten records. Raises MethodRefused where it cannot be exact."""
    del params
    if problem.recipe is None or problem.recipe.adapters is None:
        raise MethodRefused("the model has no adapters of its own: its recipe has no [adapters]")
    record, job = retrain_adapters(problem, out_dir, context)
    touched = job.inherited.first if job.inherited is not None else {}
    dropped = len(set(touched) - set(job.live))
    told = f"{len(touched)} of {job.parts} adapters had met a forgotten record"
    notes = [f"{told}, {dropped} of them dropped with their cohort; the others are unchanged, byte for byte"]
    passes = int(record.cost["forward_passes"])
    return Outcome(record.steps, passes, passes, record.curve, exact=True, notes=notes)
