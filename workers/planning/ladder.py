"""Which methods a job tries, in which order, and why. Pure: sizes, policy and what the model brings, no tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.catalogue.methods import find_method
from service.errors import BadParameters
from service.verification.policy import Policy, margin_for
from workers.planning.choice import USUAL_SHARE, Past, expected_share, order_for, worth_trying
from workers.planning.costs import ExactOption

CHEAP = 0.25
"""An exact method that costs no more of a training than this is taken before any approximate attempt."""
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
    exact. `has_references`: methods may use their side of a pool. `past`: how approximate methods did in earlier jobs
    of the model. `unqualified`: methods that the policy leaves out for want of a qualification, and why. `alarm`: the
    e-value of the wager over these publications, where it ever reached 1 / alpha.
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
    has_references: bool = False
    past: Mapping[str, Past] = {}
    alarm: float | None = None


def plan_ladder(policy: Policy, case: Situation) -> Plan:
    """The ladder for one forget set. Raises BadParameters when nothing could ever be published."""
    exact = _exact(case)
    if policy.ladder.methods != ["auto"]:
        named = [_rung(name) for name in policy.ladder.methods if name not in case.unqualified]
        alarmed = _alarmed(case)
        named = [rung for rung in named if rung.kind == "exact" or not alarmed]
        # A named exact method that can be refused still needs one behind it that cannot.
        names = {rung.method for rung in named}
        exact = [] if names & set(_NEVER_REFUSED) else [rung for rung in exact if rung.method not in names]
        rungs, why = [*named, *exact], alarmed or "the policy names the methods"
    else:
        reason = _exact_at_once(policy, case)
        approximate, why = ([], reason) if reason else _approximate(policy, case)
        rungs = [*approximate, *exact]
    fitting = [rung for rung in rungs if case.task in find_method(rung.method).tasks]
    if not fitting:
        raise BadParameters(f"{why}, and there is no recipe to retrain by; register the model with its recipe")
    taken = {rung.method for rung in fitting}
    wanted = order_for(case.has_references) if policy.ladder.methods == ["auto"] else policy.ladder.methods
    estimates = [*_estimates(case, fitting), *_left_out(case, wanted)]
    others = [*order_for(case.has_references), *(option.method for option in case.exact)]
    return Plan(
        rungs=fitting,
        why=f"{case.forget_records} of {case.data_records} records of {case.forget_subjects} people: {why}",
        alternatives=[name for name in dict.fromkeys(others) if name not in taken],
        estimates=estimates,
        expected_seconds=next(entry.seconds for entry in estimates if entry.method == fitting[0].method),
    )


def _approximate(policy: Policy, case: Situation) -> tuple[list[Rung], str]:
    """(approximate rungs, why these)."""
    fitting = [name for name in order_for(case.has_references) if name not in case.unqualified]
    tried = fitting[: policy.ladder.approximate_attempts]
    if policy.ladder.approximate_attempts and not fitting:
        return [], "the policy asks for a qualification and no approximate method has one; exact at once"
    if tried and case.exact:
        exact = case.exact[0].share
        worth = worth_trying(tried, exact, case.past)
        if not worth:
            cost = expected_share(tried, exact, case.past)
            told = f"by what earlier attempts cost and how few passed, trying would take {cost:.2f} trainings"
            return [], f"{told} and {case.exact[0].method} takes {exact:.2f}; exact at once"
        tried = worth
    aimed = "references say what to aim at for each record; " if "nabla_tau_ref" in tried else ""
    why = f"enough to judge by measurement; {aimed}approximate attempts first, exact if none passes"
    return [_rung(name) for name in tried], why


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
    alarmed = _alarmed(case)
    if alarmed:
        return alarmed
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


def _alarmed(case: Situation) -> str | None:
    """Why the publications since the line was last exact leave no room for another approximate one."""
    if case.alarm is None:
        return None
    return (
        "the planted records deleted over all publications since the model was last exact are still known to it "
        f"(e-value {case.alarm:.3g}, an alarm); exact at once"
    )


def _too_slow_or_cheap(policy: Policy, case: Situation) -> str | None:
    if not case.exact:
        return None
    cheapest = case.exact[0]
    if cheapest.share <= CHEAP:
        return f"{cheapest.method} costs {cheapest.share:.0%} of a training ({cheapest.why}); exact at once"
    if case.train_seconds is None or case.seconds_left is None:
        return None
    everything = (policy.ladder.approximate_attempts * USUAL_SHARE + cheapest.share) * case.train_seconds
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
        share, why = (option.share, option.why) if option else _usual(name, case)
        seconds = round(share * case.train_seconds, 1) if case.train_seconds else None
        made.append(Estimate(method=name, share=round(share, 4), seconds=seconds, why=why))
    return made


def _usual(name: str, case: Situation) -> tuple[float, str]:
    if find_method(name).kind == "exact":
        return 1.0, "usual share of a training"
    known = case.past.get(name)
    if known is None or not known.runs:
        return USUAL_SHARE, "usual share of a training"
    return known.share, f"median of {known.runs} earlier attempts, of which {known.passed} passed"


def _left_out(case: Situation, wanted: Sequence[str]) -> list[Estimate]:
    """Methods that would have been tried if they were qualified, with the reason why they are not."""
    cost = round(USUAL_SHARE * case.train_seconds, 1) if case.train_seconds else None
    return [
        Estimate(method=name, share=USUAL_SHARE, seconds=cost, why=f"left out: {reason}")
        for name, reason in case.unqualified.items()
        if name in wanted
    ]


def _rung(name: str) -> Rung:
    spec = find_method(name)
    return Rung(method=name, kind=spec.kind)
