"""Oracle matching: the bound of every method that matches outputs. Not deployable: it needs the answer.

Georgiev et al. 2024, arXiv:2410.23232, algorithm C.1: fine-tune the served model on forgotten and some retained records
towards the logits of a model that was retrained without the forgotten ones,
    min mean_{x in F u R'} || f_x(theta) - f_x(oracle) ||^2.
Logits are compared less their mean over the classes, since a shift of all of them changes no answer. Bounded below by
the oracle's own answers.

Needs an oracle (`Problem.oracle`), which only an experiment has. Costs `passes` visits of F with as many retained
records, and one pass of the oracle over them.
"""

from pathlib import Path

from torch import Tensor

from service.catalogue.families.references import OracleMatchingParams
from service.errors import BadParameters
from workers.modeling.batching import Encoded
from workers.modeling.distillation import Teacher
from workers.modeling.editing import Edit, Step
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Outcome, Problem


def oracle_matching(problem: Problem, params: OracleMatchingParams, context: Context, out_dir: Path) -> Outcome:
    """Write a model that answers as the oracle does into `out_dir`. Raises BadParameters without an oracle."""
    if problem.oracle is None:
        raise BadParameters("oracle_matching needs a model retrained without the records, which a service never has")
    edit = Edit(problem, params, context)
    oracle = Teacher(edit, load_model(problem.oracle, problem.task_name, context.device).model)

    def apart(part: Encoded, rows: list[int]) -> Tensor:
        difference = edit.answers(part, rows).logits - oracle.logits(part, rows)
        return (difference - difference.mean(dim=1, keepdim=True)).square().mean()

    def loss(step: Step) -> Tensor:
        return apart(edit.forget, step.forget) + apart(edit.retain, step.retain)

    edit.run(edit.over_forgotten(params.passes), loss)
    return edit.save(out_dir)
