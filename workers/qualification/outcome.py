"""What the runs of one size say together: the figures of a size class, pooled over runs and clustered by person.

The candidate is compared with a retrain that never saw the records, on the same records, since hard records look
unfamiliar to every model without them: a plain AUC of theirs is no 0.5 after exact retraining either.

- `auc`: 0.5 + AUC(candidate) - AUC(retrain), paired. Above 0.5: a leak; below: over-forgotten.
- `tpr`: per-record attack at a false-positive rate of 1 %. Score s = q(candidate) - q(retrain), with q the normal score
  of a record's rank among the held-out ones under the same model, so that a model that is surer of everything gains
  nothing. The threshold is the held-out quantile. `retrained` is the same of -s: the retrain in the candidate's place.
- `worst_decile`: the mean s of the highest tenth, in standard deviations of the held-out s, less the same of -s (a
  selected tenth is above zero without any leak), as an AUC: cdf(difference / sqrt 2).
- `utility`: performance on held-out records less the retrain's.

Method: suite for qualification after Hayes et al., arXiv 2403.01218, with one retrain as the reference of each record
(K = 1: a shift of mu standard deviations gives an AUC of cdf(mu / 2)). Intervals take the larger of the variance over
people and over runs: records of one model move together. Accuracy varies over people and over trainings, added up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.verification.policy import VerificationPolicy, margin_for
from service.verification.proportions import Proportion, trials_needed
from service.verification.qualification import AUC, AUC_MARGIN, TPR, TPR_LIMIT, UTILITY, WORST, WORST_LIMIT, Figure
from service.verification.quantiles import normal_cdf, student_quantile
from service.verification.statistics import Array, Clusters, Interval, clustering_effect, placements, threshold_at
from workers.planning.score_tables import FORGET, HELD_OUT, RETAIN
from workers.qualification.designs import CANARY
from workers.qualification.runs import ROUNDED

FALSE_POSITIVES = 0.01
TENTH = 0.1
FEWEST_RECORDS = 50
FEWEST_RUNS = 5
"""Trainings by the same recipe differ in accuracy: fewer of them do not tell by how much."""
_DRAWS = 1000
_RETRAINED = "retrained"


@dataclass(frozen=True)
class Run:
    """The scores of one finished run, see `workers.qualification.runs`."""

    design: str
    table: pa.Table

    def part(self, name: str) -> pa.Table:
        """The rows of a set: forget, retain or held_out."""
        return self.table.filter(pc.equal(self.table["set"], name))


def figures_of(runs: Sequence[Run], policy: VerificationPolicy, task: str, seed: int) -> list[Figure]:
    """The figures of runs with forget sets of one size; none of them where there are no runs or no held-out records."""
    compared = [run for run in runs if run.part(HELD_OUT).num_rows]
    if not compared:
        return []
    scored = [_scored(run) for run in compared]
    made = [_auc(compared, "", AUC), _tpr(scored), _worst(scored, seed)]
    people = [run for run in compared if run.design != CANARY]
    if people:
        made += [_utility(people, policy, task), _retained(people)]
    return [*made, *(_auc(compared, f"_{precision}", f"auc_{precision}") for precision in ROUNDED)]


def _column(table: pa.Table, name: str) -> Array:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _subjects(table: pa.Table) -> Clusters:
    return np.asarray(table["subject_id"].to_pylist(), dtype=str)


@dataclass(frozen=True)
class _Pooled:
    """An estimate with its standard error, on `df` degrees of freedom."""

    estimate: float
    se: float
    df: int

    def interval(self, confidence: float, least: float, most: float) -> Interval:
        """Two-sided bounds by Student's t; everything where there is nothing to estimate the error from."""
        if self.df < 1 or not self.se > 0:
            return least, most
        width = student_quantile(0.5 + confidence / 2, self.df) * self.se
        return max(least, self.estimate - width), min(most, self.estimate + width)


def _variance(influence: Array, groups: Clusters) -> tuple[float, int]:
    """(variance of the sum of influences of mean zero, degrees of freedom), groups being what varies."""
    _, inverse = np.unique(groups, return_inverse=True)
    sums = np.bincount(inverse, weights=influence)
    if len(sums) < 2:
        return math.nan, 0
    return float(len(sums) / (len(sums) - 1) * np.square(sums).sum()), len(sums) - 1


def _combined(estimate: float, ours: tuple[Array, Clusters, Clusters], others: tuple[Array, Clusters]) -> _Pooled:
    """From the influences of forgotten records with their people and runs, and of the others with their people.

    What runs share shows among the forgotten alone: the others' influences add up to nothing in each of them.
    """
    influence, people, runs = ours
    by_people, df = _variance(influence, people)
    by_run, freedom = _variance(influence, runs)
    rest, others_df = _variance(*others)
    if df < 1 or others_df < 1:
        return _Pooled(estimate, math.nan, 0)
    if by_run > by_people:
        by_people, df = by_run, freedom
    return _Pooled(estimate, math.sqrt(by_people + rest), min(df, others_df))


def _auc(runs: Sequence[Run], suffix: str, name: str) -> Figure:
    """The pooled paired difference of AUCs; at a coarser precision, of both models rounded alike."""
    member, other, others_people, who, of_run = [], [], [], [], []
    plain: list[tuple[Array, Array]] = []
    total = sum(run.part(FORGET).num_rows for run in runs)
    for at, run in enumerate(runs):
        forget, held_out = run.part(FORGET), run.part(HELD_OUT)
        ours, theirs = (
            placements(_column(forget, f"{model}{suffix}"), _column(held_out, f"{model}{suffix}"))
            for model in ("candidate", _RETRAINED)
        )
        member.append(ours[0] - theirs[0])
        gap = ours[1] - theirs[1]
        other.append((gap - gap.mean()) * (forget.num_rows / total / held_out.num_rows))
        who.append(_subjects(forget))
        others_people.append(_subjects(held_out))
        of_run.append(np.full(forget.num_rows, at))
        plain.append((ours[0], theirs[0]))
    gaps, subjects = np.concatenate(member), np.concatenate(who)
    difference = float(gaps.mean())
    ours_of = (gaps - difference) / total, subjects, np.concatenate(of_run)
    pooled = _combined(0.5 + difference, ours_of, (np.concatenate(other), np.concatenate(others_people)))
    gates = name == AUC
    return Figure(
        name=name,
        statistic="0.5 + AUC of the candidate - AUC of a retrain",
        estimate=pooled.estimate,
        ci=pooled.interval(0.9, -0.5, 1.5),
        ci95=pooled.interval(0.95, -0.5, 1.5),
        low=0.5 - AUC_MARGIN if gates else None,
        high=0.5 + AUC_MARGIN if gates else None,
        n=total,
        m=runs[0].part(HELD_OUT).num_rows,
        clusters=len(np.unique(subjects)),
        runs=len(runs),
        retrained=float(np.concatenate([theirs for _, theirs in plain]).mean()),
    )


@dataclass(frozen=True)
class _Scored:
    """s of a run's forgotten [n] and held-out [m] records."""

    forget: Array
    held_out: Array
    subjects: Clusters


def _scored(run: Run) -> _Scored:
    forget, held_out = run.part(FORGET), run.part(HELD_OUT)
    first, second = (
        _normal_scores(_column(forget, model), _column(held_out, model)) for model in ("candidate", _RETRAINED)
    )
    return _Scored(first[0] - second[0], first[1] - second[1], _subjects(forget))


def _normal_scores(members: Array, others: Array) -> tuple[Array, Array]:
    """Normal scores of the ranks of members [n] and others [m] among the others, a record not counted beside itself."""
    from scipy.special import ndtri

    ordered = np.sort(others)

    def below(values: Array) -> Array:
        left, right = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
        return np.asarray((left + right) / 2, dtype=np.float64)

    inside = np.asarray(ndtri((below(members) + 0.5) / (len(others) + 1)), dtype=np.float64)
    return inside, np.asarray(ndtri(below(others) / len(others)), dtype=np.float64)


def _tpr(scored: Sequence[_Scored]) -> Figure:
    subjects = np.concatenate([run.subjects for run in scored])
    total, fewest = len(subjects), min(len(run.held_out) for run in scored)
    figure = Figure(
        name=TPR,
        statistic="share of forgotten records found at a false-positive rate of 1 %",
        high=TPR_LIMIT,
        n=total,
        m=fewest,
        clusters=len(np.unique(subjects)),
        runs=len(scored),
    )
    needed = trials_needed(FALSE_POSITIVES)
    if fewest < needed:
        return figure.model_copy(update={"reason": f"it takes {needed} held-out records, there are {fewest}"})
    effect = clustering_effect(np.concatenate([run.forget for run in scored]), subjects)
    ours, theirs = (Proportion(_found(scored, sign), total).effective(effect) for sign in (1, -1))
    return figure.model_copy(
        update={
            "estimate": ours.rate,
            "ci": (ours.lower(), ours.upper()),
            "ci95": ours.interval(),
            "retrained": theirs.rate,
            "retrained_ci95": theirs.interval(),
        }
    )


def _found(scored: Sequence[_Scored], sign: int) -> int:
    return sum(
        int(np.count_nonzero(sign * run.forget > threshold_at(sign * run.held_out, FALSE_POSITIVES))) for run in scored
    )


def _worst(scored: Sequence[_Scored], seed: int) -> Figure:
    """The worst tenth with a bootstrap over people, percentile intervals of 1,000 draws."""
    subjects = np.concatenate([run.subjects for run in scored])
    figure = Figure(
        name=WORST,
        statistic="AUC of the tenth of the records that stands out most, less the same of retrains",
        high=WORST_LIMIT,
        n=len(subjects),
        m=len(scored[0].held_out),
        clusters=len(np.unique(subjects)),
        runs=len(scored),
    )
    if figure.clusters < FEWEST_RECORDS:
        told = f"the tenth of {figure.clusters} people's records is too few: it takes {FEWEST_RECORDS} people"
        return figure.model_copy(update={"reason": told})
    shifts = np.concatenate([(run.forget - run.held_out.mean()) / run.held_out.std(ddof=1) for run in scored])
    rows = [np.flatnonzero(subjects == name) for name in np.unique(subjects)]
    draw = np.random.default_rng(seed)
    drawn = [
        _excess(shifts[np.concatenate([rows[at] for at in draw.integers(0, len(rows), len(rows))])])
        for _ in range(_DRAWS)
    ]
    low, high = (np.quantile(drawn, [tail, 1 - tail]) for tail in (0.05, 0.025))
    update = {"estimate": _excess(shifts), "ci": tuple(map(float, low)), "ci95": tuple(map(float, high))}
    return figure.model_copy(update=update)


def _excess(shifts: Array) -> float:
    """AUC that the upper tenth of the shifts reaches beyond the lower one."""
    count = math.ceil(TENTH * len(shifts))
    ordered = np.sort(shifts)
    return normal_cdf(float(ordered[-count:].mean() + ordered[:count].mean()) / math.sqrt(2))


def _utility(runs: Sequence[Run], policy: VerificationPolicy, task: str) -> Figure:
    """Accuracy less the retrain's; for language models the log of the ratio of perplexities, the other way round."""
    language = task == "causal-lm"
    estimates, influences, people = [], [], []
    for run in runs:
        held_out = run.part(HELD_OUT)
        estimate, influence = _log_ratio(held_out) if language else _gain(held_out)
        estimates.append(estimate)
        influences.append(influence / len(runs))
        people.append(_subjects(held_out))
    pooled = _mean_over_runs(np.array(estimates), influences, people)
    m = runs[0].part(HELD_OUT).num_rows
    table = policy.perplexity_margin if language else policy.utility_margin
    margin = margin_for(table, m) or max(table.values())
    # Never known better than by one record gained and one lost.
    pooled = _Pooled(pooled.estimate, pooled.se if language else max(pooled.se, math.sqrt(2) / m), pooled.df)
    bound = math.log(margin) if language else margin
    known = pooled.df > 0
    return Figure(
        name=UTILITY,
        statistic="log perplexity ratio to a retrain" if language else "accuracy less that of a retrain",
        estimate=pooled.estimate,
        ci=pooled.interval(0.9, -1e3, 1e3) if known else None,
        ci95=pooled.interval(0.95, -1e3, 1e3) if known else None,
        reason=None if known else f"trainings differ by themselves: it takes {FEWEST_RUNS} runs",
        low=None if language else -bound,
        high=bound if language else None,
        m=m,
        clusters=len(np.unique(people[0])),
        runs=len(runs),
    )


def _mean_over_runs(estimates: Array, influences: Sequence[Array], people: Sequence[Clusters]) -> _Pooled:
    """Over runs on the same records: these vary, and so do trainings, each for itself: a few do not tell an error."""
    mean = float(estimates.mean())
    by_people, df = _variance(np.concatenate(influences), np.concatenate(people))
    if df < 1 or len(estimates) < FEWEST_RUNS:
        return _Pooled(mean, math.nan, 0)
    by_run = float(estimates.var(ddof=1)) / len(estimates)
    return _Pooled(mean, math.sqrt(by_people + by_run), min(df, len(estimates) - 1))


def _gain(rows: pa.Table) -> tuple[float, Array]:
    gains = _column(rows, "candidate_accuracy") - _column(rows, "retrained_accuracy")
    return float(gains.mean()), (gains - gains.mean()) / len(gains)


def _log_ratio(rows: pa.Table) -> tuple[float, Array]:
    """Per token of the original, whatever units the losses are compared in."""
    scale = float(_column(rows, "candidate_units").mean() / _column(rows, "tokens").mean())
    values, influences = [], []
    for model in ("candidate", _RETRAINED):
        nll, units = _column(rows, f"{model}_nll"), _column(rows, f"{model}_units")
        loss = float(nll.sum() / units.sum())
        values.append(loss * scale)
        influences.append((nll - loss * units) / units.sum() * scale)
    return values[0] - values[1], np.asarray(influences[0] - influences[1], dtype=np.float64)


def _retained(runs: Sequence[Run]) -> Figure:
    """What the retained records lost beside the retrain's own: reported, and no gate."""
    estimates, influences, people = [], [], []
    for run in runs:
        estimate, influence = _gain(run.part(RETAIN))
        estimates.append(estimate)
        influences.append(influence / len(runs))
        people.append(_subjects(run.part(RETAIN)))
    pooled = _mean_over_runs(np.array(estimates), influences, people)
    return Figure(
        name="retained_accuracy",
        statistic="accuracy on retained records less that of a retrain",
        estimate=pooled.estimate,
        ci=pooled.interval(0.9, -1.0, 1.0) if pooled.df > 0 else None,
        ci95=pooled.interval(0.95, -1.0, 1.0) if pooled.df > 0 else None,
        m=runs[0].part(RETAIN).num_rows,
        clusters=len(np.unique(people[0])),
        runs=len(runs),
    )
