"""Which methods a job tries, in which order, and why. Pure: sizes, policy and what the model brings, no tensors."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.catalogue.methods import find_method
from service.errors import BadParameters
from service.verification.policy import Policy, margin_for

APPROXIMATE = ("nabla_tau", "negative_gradient_plus")
"""In the order in which `auto` tries them."""
_EXPECTED_SHARE = {"nabla_tau": 0.2, "negative_gradient_plus": 0.2, "retrain": 1.0}


class Rung(BaseModel):
    """One attempt to be made, from the base weights."""

    model_config = ConfigDict(frozen=True)

    method: str
    params: dict[str, Any] = {}
    kind: Literal["exact", "approximate"]


class Plan(BaseModel):
    """The ladder, its expected cost in seconds (null where no training was timed), and a sentence why."""

    model_config = ConfigDict(frozen=True)

    rungs: list[Rung]
    why: str
    alternatives: list[str] = []
    expected_seconds: float | None = None


def plan_ladder(
    policy: Policy,
    *,
    task: str,
    forget_records: int,
    forget_subjects: int,
    data_records: int,
    has_recipe: bool,
    has_held_out: bool,
    train_seconds: float | None,
) -> Plan:
    """The ladder for one forget set. Raises BadParameters when nothing could ever be published."""
    if policy.ladder.methods != ["auto"]:
        rungs, why = _named(policy, has_recipe)
    else:
        rungs, why = _chosen(policy, forget_records, forget_subjects, has_recipe, has_held_out)
    fitting = [rung for rung in rungs if task in find_method(rung.method).tasks]
    if not fitting:
        raise BadParameters(f"{why}, and there is no recipe to retrain by; register the model with its recipe")
    cost = sum(_EXPECTED_SHARE.get(rung.method, 1.0) for rung in fitting[:1]) * (train_seconds or 0.0)
    return Plan(
        rungs=fitting,
        why=f"{forget_records} of {data_records} records of {forget_subjects} people: {why}",
        alternatives=[name for name in (*APPROXIMATE, "retrain") if name not in {rung.method for rung in fitting}],
        expected_seconds=round(cost, 1) if train_seconds else None,
    )


def _named(policy: Policy, has_recipe: bool) -> tuple[list[Rung], str]:
    rungs = [_rung(name) for name in policy.ladder.methods]
    if has_recipe and not any(rung.kind == "exact" for rung in rungs):
        rungs.append(_rung("retrain"))
    return rungs, "the policy names the methods"


def _chosen(policy: Policy, records: int, people: int, has_recipe: bool, has_held_out: bool) -> tuple[list[Rung], str]:
    exact = [_rung("retrain")] if has_recipe else []
    rules = policy.verification
    if not has_held_out:
        return exact, "no held-out set, so no approximate attempt could be judged; exact at once"
    if margin_for(rules.auc_margin, records) is None:
        smallest = min(int(size) for size in rules.auc_margin)
        return exact, f"fewer than {smallest} records, so no approximate attempt could be judged; exact at once"
    if people < rules.min_subjects:
        return (
            exact,
            f"fewer than {rules.min_subjects} people, so no approximate attempt could be judged; exact at once",
        )
    approximate = [_rung(name) for name in APPROXIMATE[: policy.ladder.approximate_attempts]]
    return [*approximate, *exact], "enough to judge by measurement; approximate attempts first, exact if none passes"


def _rung(name: str) -> Rung:
    spec = find_method(name)
    return Rung(method=name, kind=spec.kind)
