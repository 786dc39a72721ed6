"""Which methods a job tries, in which order, and why. Pure: sizes, policy and what the model brings, no tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.catalogue.methods import find_method
from service.errors import BadParameters
from service.verification.policy import Policy, margin_for
from workers.planning.costs import ExactOption

APPROXIMATE = ("nabla_tau", "negative_gradient_plus")
"""In the order in which `auto` tries them."""
CHEAP = 0.25
"""An exact method that costs no more of a training than this is taken before any approximate attempt."""
_APPROXIMATE_SHARE = 0.2
_WORTH_A_RISK = 0.9
_STAND_IN = (
    "too few for the attack on them to decide, and neither canaries nor records one by one stand in for it, so that no "
    "approximate attempt could pass; exact at once"
)
"""Canaries stand in only where the attack was measured and found nothing before either; records one by one never gate
(service.verification.verdict)."""
_NEVER_REFUSED = ("retrain", "refit")


class Rung(BaseModel):
    """One attempt to be made, from the base weights."""

    model_config = ConfigDict(frozen=True)

    method: str
    params: dict[str, Any] = {}
    kind: Literal["exact", "approximate"]


class Estimate(BaseModel):
    """What a method is expected to cost: as a share of one training, and in seconds where one was timed."""

    model_config = ConfigDict(frozen=True)

    method: str
    share: float
    seconds: float | None
    why: str


class Plan(BaseModel):
    """The ladder, its expected cost in seconds (null where no training was timed), and a sentence why."""

    model_config = ConfigDict(frozen=True)

    rungs: list[Rung]
    why: str
    alternatives: list[str] = []
    estimates: list[Estimate] = []
    expected_seconds: float | None = None


class Situation(BaseModel):
    """What the ladder depends on beside the policy.

    `train_seconds` is the time of one training (None: never timed), `seconds_left` until the earliest deadline.
    `edits` and `edited_records` count approximate publications, and the records they removed, since the line was last
    exact. `unqualified`: methods that the policy leaves out for want of a qualification, and why.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    task: str
    forget_records: int
    forget_subjects: int
    data_records: int
    has_held_out: bool
    exact: Sequence[ExactOption]
    train_seconds: float | None = None
    seconds_left: float | None = None
    edits: int = 0
    edited_records: int = 0
    unqualified: Mapping[str, str] = {}


def plan_ladder(policy: Policy, case: Situation) -> Plan:
    """The ladder for one forget set. Raises BadParameters when nothing could ever be published."""
    exact = _exact(case)
    if policy.ladder.methods != ["auto"]:
        named = [_rung(name) for name in policy.ladder.methods if name not in case.unqualified]
        # A named exact method that can be refused still needs one behind it that cannot.
        names = {rung.method for rung in named}
        exact = [] if names & set(_NEVER_REFUSED) else [rung for rung in exact if rung.method not in names]
        rungs, why = [*named, *exact], "the policy names the methods"
    else:
        reason = _exact_at_once(policy, case)
        tried = [name for name in APPROXIMATE if name not in case.unqualified]
        approximate = [_rung(name) for name in tried[: policy.ladder.approximate_attempts]]
        rungs = exact if reason else [*approximate, *exact]
        why = reason or "enough to judge by measurement; approximate attempts first, exact if none passes"
        if not reason and policy.ladder.approximate_attempts and not tried:
            why = "the policy asks for a qualification and no approximate method has one; exact at once"
    fitting = [rung for rung in rungs if case.task in find_method(rung.method).tasks]
    if not fitting:
        raise BadParameters(f"{why}, and there is no recipe to retrain by; register the model with its recipe")
    taken = {rung.method for rung in fitting}
    estimates = _estimates(case, fitting)
    others = [*APPROXIMATE, *(option.method for option in case.exact)]
    return Plan(
        rungs=fitting,
        why=f"{case.forget_records} of {case.data_records} records of {case.forget_subjects} people: {why}",
        alternatives=[name for name in dict.fromkeys(others) if name not in taken],
        estimates=estimates,
        expected_seconds=next(entry.seconds for entry in estimates if entry.method == fitting[0].method),
    )


def _exact(case: Situation) -> list[Rung]:
    """Exact rungs, cheapest first, as far as the first that is never refused.

    One that can be refused has to save something for the attempt that may be lost with it. The cheapest is also the
    first to meet a deadline, so there is nothing more to choose by.
    """
    worth = [o for o in case.exact if o.method in _NEVER_REFUSED or o.share <= _WORTH_A_RISK]
    last = next((at for at, option in enumerate(worth) if option.method in _NEVER_REFUSED), len(worth))
    return [_rung(option.method) for option in worth[: last + 1]]


def _exact_at_once(policy: Policy, case: Situation) -> str | None:
    """Why no approximate attempt is made; None where one is."""
    rules = policy.verification
    ladder = policy.ladder
    if case.edits >= ladder.approximate_edits:
        return f"{case.edits} approximate versions since the model was last exact, as many as the policy allows; exact"
    if case.edited_records and case.edited_records >= ladder.approximate_share * case.data_records:
        share = case.edited_records / case.data_records
        return f"{share:.1%} of the data was removed by approximate methods since the model was last exact; exact"
    if not case.has_held_out:
        return "no held-out set to compare with, so that no approximate attempt could pass; exact at once"
    if margin_for(rules.auc_margin, case.forget_records) is None:
        smallest = min(int(size) for size in rules.auc_margin)
        return f"fewer than {smallest} records, {_STAND_IN}"
    if case.forget_subjects < rules.min_subjects:
        return f"fewer than {rules.min_subjects} people, {_STAND_IN}"
    return _too_slow_or_cheap(policy, case)


def _too_slow_or_cheap(policy: Policy, case: Situation) -> str | None:
    if not case.exact:
        return None
    cheapest = case.exact[0]
    if cheapest.share <= CHEAP:
        return f"{cheapest.method} costs {cheapest.share:.0%} of a training ({cheapest.why}); exact at once"
    if case.train_seconds is None or case.seconds_left is None:
        return None
    everything = (policy.ladder.approximate_attempts * _APPROXIMATE_SHARE + cheapest.share) * case.train_seconds
    if everything > case.seconds_left:
        return "the deadline leaves no time for attempts that may not pass; exact at once"
    return None


def _estimates(case: Situation, rungs: Sequence[Rung]) -> list[Estimate]:
    """What the rungs and every other exact method would cost."""
    known = {option.method: option for option in case.exact}
    names = dict.fromkeys([*(rung.method for rung in rungs), *known])
    made = []
    for name in names:
        option = known.get(name)
        usual = _APPROXIMATE_SHARE if find_method(name).kind == "approximate" else 1.0
        share, why = (option.share, option.why) if option else (usual, "usual share of a training")
        seconds = round(share * case.train_seconds, 1) if case.train_seconds else None
        made.append(Estimate(method=name, share=round(share, 4), seconds=seconds, why=why))
    return [*made, *_left_out(case)]


def _left_out(case: Situation) -> list[Estimate]:
    """Methods that would have been tried if they were qualified, with the reason why they are not."""
    cost = round(_APPROXIMATE_SHARE * case.train_seconds, 1) if case.train_seconds else None
    return [
        Estimate(method=name, share=_APPROXIMATE_SHARE, seconds=cost, why=f"left out: {reason}")
        for name, reason in case.unqualified.items()
    ]


def _rung(name: str) -> Rung:
    spec = find_method(name)
    return Rung(method=name, kind=spec.kind)
