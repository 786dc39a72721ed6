"""Is a pool worth its price? Preparing and refreshing it, in retrains, beside plain batched retraining. Pure.

A pool lets jobs be approximate, at a fraction of a retrain each; but its members hold the deleted people too and have
to be trained again. With one subject per refresh half of the members are touched, with several nearly all, so that
a pool of halves pays only where jobs share refreshes, where references are much cheaper than the model, or where it is
bought for what it can show and not for what it saves. Members on reserved people need no refresh.
"""

from dataclasses import dataclass
from typing import Literal

from service.errors import BadParameters
from workers.references.split import Strategy, sides_of

EXACT_EVERY = 10
HALF = 0.5


@dataclass(frozen=True)
class Horizon:
    """What is expected: `jobs` batches of deletions of `subjects_per_job` people each.

    `job_cost`: an approximate job with its verification, in retrains. `jobs_per_refresh` share one refresh before
    their destroy-by dates, `jobs_per_retrain` would share one retraining before their deadlines. After `exact_every`
    approximate jobs the next is a retrain (0: never).
    """

    jobs: float
    subjects_per_job: float = 1.0
    job_cost: float = 0.1
    jobs_per_refresh: float = 1.0
    jobs_per_retrain: float = 1.0
    exact_every: int = EXACT_EVERY


@dataclass(frozen=True)
class Estimate:
    """Costs in retrains. `affected`: members trained again in a refresh, expected; `pays_after`: jobs, None: never."""

    prepare: float
    affected: float
    per_refresh: float
    refreshes: float
    refreshing: float
    jobs: float
    total: float
    retraining: float
    pays_after: float | None
    better: Literal["pool", "retraining"]
    sentence: str


def estimate(
    count: int,
    horizon: Horizon,
    strategy: Strategy = "halves",
    share: float = HALF,
    recipe_cost: float = 1.0,
) -> Estimate:
    """What `count` references cost over the horizon against retraining for every batch.

    `share` of the data that a member trains on, `recipe_cost` of its recipe relative to the served model's on the same
    data. "reserved_split" assumes that reserved people do not ask for deletion. Raises BadParameters for a size that
    makes no pool and for numbers that are no expectation.
    """
    sides_of(count)
    _check(horizon, share, recipe_cost)
    member = share * recipe_cost
    affected = 0.0 if strategy == "reserved_split" else expected_affected(count, _subjects(horizon))
    refreshes = 0.0 if affected == 0.0 else horizon.jobs / horizon.jobs_per_refresh
    job = _job(horizon)
    rate = job + affected * member / horizon.jobs_per_refresh
    plain = 1 / horizon.jobs_per_retrain
    prepare, total = count * member, count * member + horizon.jobs * rate
    retraining = horizon.jobs * plain
    made = Estimate(
        prepare=prepare,
        affected=affected,
        per_refresh=affected * member,
        refreshes=refreshes,
        refreshing=refreshes * affected * member,
        jobs=horizon.jobs * job,
        total=total,
        retraining=retraining,
        pays_after=prepare / (plain - rate) if plain > rate else None,
        better="pool" if total < retraining else "retraining",
        sentence="",
    )
    return Estimate(**{**vars(made), "sentence": _sentence(count, horizon, made)})


def expected_affected(count: int, subjects: float) -> float:
    """Members of a pool of halves that hold at least one of so many people: K (1 - 2^-s).

    A person is in exactly one member of each pair, in either with probability one half.
    """
    return float(count * (1 - 2.0**-subjects))


def _subjects(horizon: Horizon) -> float:
    return horizon.subjects_per_job * min(horizon.jobs_per_refresh, max(horizon.jobs, 1.0))


def _job(horizon: Horizon) -> float:
    """Mean cost of a job: so many approximate ones, then an exact one."""
    if not horizon.exact_every:
        return horizon.job_cost
    return (horizon.exact_every * horizon.job_cost + 1) / (horizon.exact_every + 1)


def _check(horizon: Horizon, share: float, recipe_cost: float) -> None:
    wrong = {
        "jobs": horizon.jobs < 0,
        "subjects per job": horizon.subjects_per_job <= 0,
        "cost of a job": horizon.job_cost < 0,
        "jobs per refresh": horizon.jobs_per_refresh < 1,
        "jobs per retrain": horizon.jobs_per_retrain < 1,
        "jobs until an exact one": horizon.exact_every < 0,
        "share of the data": not 0 < share <= 1,
        "cost of the recipe": recipe_cost <= 0,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise BadParameters(f"an estimate with this number of {name} makes no sense; correct it")


def _sentence(count: int, horizon: Horizon, made: Estimate) -> str:
    parts = [f"{count} references cost {made.prepare:.1f} retrains to prepare"]
    if made.refreshes:
        parts.append(f"{made.refreshing:.1f} for {made.refreshes:.3g} refreshes of {made.affected:.3g} references each")
    else:
        parts.append("nothing to refresh")
    told = f"{', '.join(parts)}, and {horizon.jobs:.3g} jobs {made.jobs:.1f}: {made.total:.1f} in all. "
    told += f"Plain batched retraining costs {made.retraining:.1f} over the same horizon: "
    if made.better == "pool":
        return told + "the pool is the better buy."
    if made.pays_after is None:
        return told + "retraining is the better buy, however many jobs there are."
    return told + f"retraining is the better buy, up to {made.pays_after:.0f} jobs."
