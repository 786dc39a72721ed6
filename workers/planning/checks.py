"""From score tables to the checks of an evaluation: numbers only, no verdicts (those are service.verification's)."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.verification.policy import VerificationPolicy, margin_for
from service.verification.schema import Check, Interval
from service.verification.statistics import Array, Auc, AucDesign, Clusters, Mean, NotMeasurable, clustered_auc
from service.verification.verdict import (
    ACCURACY,
    BLIND,
    BLIND_LIMIT,
    CHANCE,
    CONTROL,
    COPIES,
    DIFFICULTY,
    DISTINCT,
    MEMBERSHIP,
    PERPLEXITY,
    SAMPLED,
    SANITY,
    SPREAD_LIMIT,
    UTILITY,
    WHOLE,
    unlike,
)
from workers.metrics.blind_baseline import Features, blind_baseline
from workers.metrics.difficulty_baseline import Difficulty, difficulty_auc
from workers.metrics.membership_auc import membership_auc, membership_design
from workers.metrics.tpr_at_fpr import OperatingPoint
from workers.metrics.utility import accuracy_difference, log_perplexity_ratio, utility_design
from workers.planning.score_tables import FORGET, HELD_OUT, RETAIN, ModelScores, SetScores

NO_HELD_OUT = "no held-out records: there is nobody to compare the forgotten records with"

_PEOPLE = "subject"
_LARGEST_EXPONENT = 300.0
_FEWEST = 10


@dataclass(frozen=True)
class BlindFeatures:
    """What the blind baseline sees: features and subjects of forgotten and of held-out records (or samples of them)."""

    forget: Features
    forget_subjects: Clusters
    held_out: Features
    held_out_subjects: Clusters


def membership_checks(
    original: ModelScores, candidate: ModelScores, policy: VerificationPolicy, alpha: float
) -> list[Check]:
    """`membership_auc` of the candidate and `positive_control`, the same of the original."""
    n = len(original[FORGET])
    if HELD_OUT not in original:
        return [
            Check(id=name, role="diagnostic", statistic="AUC", n=n, m=0, reason=NO_HELD_OUT, verdict="info")
            for name in (MEMBERSHIP, CONTROL)
        ]
    design = membership_design(*_sides(original))
    margin = margin_for(policy.auc_margin, n)
    return [
        auc_check(MEMBERSHIP, auc_of(candidate), alpha, margin, design),
        auc_check(CONTROL, auc_of(original), alpha, margin, design),
    ]


def auc_of(model: ModelScores) -> Auc:
    """Membership AUC of one model."""
    return membership_auc(*_sides(model))


def _sides(model: ModelScores) -> tuple[Array, Array, Clusters, Clusters]:
    forget, held_out = model[FORGET], model[HELD_OUT]
    return forget.membership, held_out.membership, forget.subjects, held_out.subjects


def auc_check(
    name: str,
    auc: Auc,
    alpha: float,
    margin: float | None,
    design: AucDesign | None = None,
    statistic: str = "AUC",
    cluster: str = _PEOPLE,
) -> Check:
    """An AUC as a check without a verdict; `design` says what so many records can show."""
    return Check(
        id=name,
        role="diagnostic",
        statistic=statistic,
        estimate=auc.auc,
        alpha=alpha,
        ci=auc.interval(1 - 2 * alpha),
        ci95=auc.interval(0.95),
        margin=margin,
        n=auc.n,
        m=auc.m,
        cluster=cluster,
        clusters=auc.clusters,
        power_at_zero=design.power_at_zero(margin, alpha) if design and margin is not None else None,
        smallest_detectable=design.smallest_detectable(alpha) if design else None,
    )


def blind_check(features: BlindFeatures | None, has_held_out: bool, alpha: float, seed: int) -> Check:
    """`blind_baseline`: forgotten against held-out records without any model."""
    if features is None:
        reason = "not run: no features of the records were given" if has_held_out else NO_HELD_OUT
        return Check(id=BLIND, role="diagnostic", statistic="AUC", reason=reason)
    found = blind_baseline(
        features.forget, features.held_out, features.forget_subjects, features.held_out_subjects, seed
    )
    if isinstance(found, NotMeasurable):
        n, m = len(features.forget), len(features.held_out)
        return Check(id=BLIND, role="diagnostic", statistic="AUC", reason=found.reason, n=n, m=m)
    return auc_check(BLIND, found, alpha, BLIND_LIMIT - CHANCE)


def difficulty_check(easy: Difficulty | None, alpha: float, original: ModelScores) -> Check:
    """`difficulty_baseline`: how sure the training grew of forgotten records, against retained ones.

    A training on texts notes its confidence at a few tokens of each, which need not be the hard ones. What it ended
    with, the original, has read them whole: where it is surer of either, that is what counts. It took both in, so that
    they differ in difficulty alone; where it knows all by heart, it does not say which were hard.
    """
    language = original[FORGET].likelihood is not None
    if language:
        whole = auc_check(DIFFICULTY, _own_auc(original), alpha, BLIND_LIMIT - CHANCE, statistic=WHOLE)
        if unlike(whole):
            return whole
    statistic = SAMPLED if language else "AUC of mean training confidence, forgotten against retained records"
    found = difficulty_auc(easy) if easy is not None else NotMeasurable("not run: the training left no learning events")
    if isinstance(found, NotMeasurable):
        return Check(id=DIFFICULTY, role="diagnostic", statistic=statistic, reason=found.reason)
    return auc_check(DIFFICULTY, found, alpha, BLIND_LIMIT - CHANCE, statistic=statistic)


def _own_auc(original: ModelScores) -> Auc:
    forget, retain = original[FORGET], original[RETAIN]
    return clustered_auc(forget.membership, retain.membership, forget.subjects, retain.subjects)


def copies_check(count: int | None, forgotten: int) -> Check:
    """`near_duplicates`: retained records that say what forgotten ones say; None where nobody looked."""
    reason = "not run: nobody looked for copies" if count is None else None
    statistic = "retained copies of forgotten records"
    return Check(id=COPIES, role="diagnostic", statistic=statistic, estimate=count, n=forgotten, reason=reason)


def utility_check(
    original: ModelScores,
    candidate: ModelScores,
    policy: VerificationPolicy,
    alpha: float,
    forgotten_classes: Collection[Any] | None = None,
) -> Check:
    """`utility` on held-out certification records, paired by record and clustered by subject.

    A class of which every training record was forgotten is not to be known any more: its held-out records do not count.
    `forgotten_classes` None: those that forgotten records have and no scored retained one.
    """
    if HELD_OUT not in original:
        return Check(id=UTILITY, role="diagnostic", statistic="performance on held-out records", reason=NO_HELD_OUT)
    before, after = (_still_taught(model[HELD_OUT], original, forgotten_classes) for model in (original, candidate))
    if not len(before):
        return Check(id=UTILITY, role="diagnostic", statistic=ACCURACY, reason="every class was forgotten", n=0)
    if before.likelihood is None or after.likelihood is None:
        difference = accuracy_difference(before.accuracy, after.accuracy, before.subjects)
        influence = (before.accuracy - before.accuracy.mean()) / len(before)
        return _utility(ACCURACY, difference, influence, before, policy.utility_margin, alpha)
    # Bytes per token of the original where the units are bytes, 1 where they are tokens.
    scale = float(before.likelihood.units.sum() / before.tokens.sum())
    ratio = log_perplexity_ratio(before.likelihood, after.likelihood, before.subjects, scale)
    return _utility(PERPLEXITY, ratio, before.likelihood.influence * scale, before, policy.perplexity_margin, alpha)


def _still_taught(held_out: SetScores, original: ModelScores, gone: Collection[Any] | None) -> SetScores:
    """Held-out records of classes that were not forgotten as a whole."""
    forget, retain = original[FORGET].labels, original[RETAIN].labels
    if held_out.labels is None or forget is None or retain is None:
        return held_out
    labels = np.setdiff1d(forget, retain) if gone is None else np.array(sorted(gone))
    return held_out.of(~np.isin(held_out.labels, labels)) if len(labels) else held_out


def _utility(
    statistic: str, mean: Mean, influence: Array, scores: SetScores, table: Mapping[str, float], alpha: float
) -> Check:
    ratio = statistic == PERPLEXITY
    design = utility_design(influence, scores.subjects)
    # Below the smallest size the check is a diagnostic; the widest margin then says what a failure would be.
    margin = margin_for(dict(table), mean.n) or max(table.values())
    smallest = design.smallest_detectable(alpha)
    return Check(
        id=UTILITY,
        role="diagnostic",
        statistic=statistic,
        estimate=_exp(mean.estimate) if ratio else mean.estimate,
        alpha=alpha,
        ci=_bounds(mean.interval(1 - 2 * alpha), ratio),
        ci95=_bounds(mean.interval(0.95), ratio),
        margin=margin,
        n=mean.n,
        cluster=_PEOPLE,
        clusters=(mean.clusters,),
        power_at_zero=design.power_at_zero(math.log(margin) if ratio else margin, alpha),
        smallest_detectable=_exp(smallest) if ratio and smallest is not None else smallest,
    )


def _exp(value: float) -> float:
    return math.exp(min(value, _LARGEST_EXPONENT))


def _bounds(interval: Interval | None, ratio: bool) -> Interval | None:
    if interval is None or not ratio:
        return interval
    return _exp(interval[0]), _exp(interval[1])


def distinct_check(original: Mapping[str, SetScores], candidate: Mapping[str, SetScores], files_differ: bool) -> Check:
    """`distinct`: other weights than the original's, and not the same output on every single record."""
    same = all(np.array_equal(original[part].membership, candidate[part].membership) for part in original)
    reason = "the candidate's weights are the original's" if not files_differ else None
    if reason is None and same:
        reason = "the candidate answers every record exactly as the original does"
    return Check(
        id=DISTINCT,
        role="gate",
        statistic="weights differ from the original's",
        verdict="fail" if reason else "pass",
        reason=reason,
    )


def sanity_check(original: ModelScores, candidate: ModelScores, weights_finite: bool) -> Check:
    """`sanity`: loaded, finite, and scores that vary: interquartile range of held-out scores over the original's.

    Right and wrong answers apart (of a language model, texts below and above its own median): a model as sure of each
    right answer as of any other would hide behind two values.
    """
    part = HELD_OUT if HELD_OUT in original else RETAIN
    before, after = _spread(original[part]), _spread(candidate[part])
    return Check(
        id=SANITY,
        role="gate",
        statistic="spread of scores, candidate over original",
        estimate=after / before if before > 0 else None,
        margin=SPREAD_LIMIT,
        n=len(original[part]),
        verdict="pass" if weights_finite else "fail",
        reason=None if weights_finite else "the candidate has weights that are not finite",
    )


def _spread(scores: SetScores) -> float:
    """Interquartile range of the scores, the mean over two groups by their number."""
    upper = scores.accuracy > 0 if scores.likelihood is None else scores.membership > np.median(scores.membership)
    groups = [group for group in (upper, ~upper) if group.sum() >= _FEWEST] or [np.ones(len(scores), dtype=bool)]
    total = sum(int(group.sum()) for group in groups)
    ranges = (np.subtract(*np.quantile(scores.membership[group], [0.75, 0.25])) * group.sum() for group in groups)
    return float(sum(ranges)) / total


def metric_check(name: str, statistic: str, found: Mean | OperatingPoint | NotMeasurable, n: int, m: int) -> Check:
    """A diagnostic with its 95 % interval, or with the reason why there is none."""
    check = Check(id=name, role="diagnostic", statistic=statistic, n=n, m=m or None)
    if isinstance(found, NotMeasurable):
        return check.model_copy(update={"reason": found.reason})
    if isinstance(found, OperatingPoint):
        return check.model_copy(update={"estimate": found.rate, "ci95": found.ci95, "cluster": _PEOPLE})
    values = {"estimate": found.estimate, "ci95": found.interval(0.95), "clusters": (found.clusters,)}
    return check.model_copy(update=values | {"cluster": _PEOPLE})
