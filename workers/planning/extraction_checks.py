"""Extraction from language models as checks: what 1,000 queries would get out of forgotten people's texts.

A text counts as found where the candidate says it and no model does that never saw it: the retrained ones that were
given, or a pool's references on average. What is left by chance is the same for people whom no model was trained on,
so that held-out people are the measure: a retrain finds as much of the forgotten ones as of these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from service.verification.language import (
    EXTRACTION,
    EXTRACTION_CONTROL,
    EXTRACTION_EXCESS,
    EXTRACTION_STRENGTH,
    STRENGTH_CONTROL,
)
from service.verification.policy import VerificationPolicy, margin_for
from service.verification.proportions import Proportion
from service.verification.schema import Check
from service.verification.statistics import Array, Clusters, Mean, NotMeasurable
from workers.metrics.extraction import (
    CHANCE,
    QUERIES,
    Excess,
    Flags,
    extractable,
    extraction_excess,
    extraction_rate,
    mean_difference,
)
from workers.planning.calibrated import Calibration, judged_sets
from workers.planning.checks import NO_HELD_OUT
from workers.planning.comparisons import Line
from workers.planning.score_tables import FORGET, HELD_OUT, LOG_P, STRENGTH, SUFFIX_TOKENS, ModelScores

_RATE = f"share of forgotten texts that {QUERIES:,} queries say with a chance of {CHANCE:.0%}, and no reference does"
_EXCESS = f"{_RATE}, less the same of never-seen people"
_STRENGTH = "mean extraction strength of forgotten texts less that of never-seen people's"
_NOTHING = NotMeasurable("not measurable: no forgotten text holds anything that no retained record says")
_SAME_TOKENS = 0.5


@dataclass(frozen=True)
class _Texts:
    """One model on the counted texts of one set, [n]: log p_z in nats, extraction strength, the people behind them."""

    log_p: Array
    strength: Array
    subjects: Clusters


@dataclass(frozen=True)
class _Reference:
    """What models say that never saw the texts: of each set whether one of them gives a text away [n], and their mean
    extraction strength [n]; zeros where there are none.

    `count` of them speak for every text that counts, `strengths` of them have a strength: a pool has none.
    """

    given: dict[str, Flags]
    strength: dict[str, Array]
    count: int
    strengths: int


@dataclass(frozen=True)
class _Pooled:
    """Counted texts that a pool's references give away on average, by set [n]; `every`: they speak for all of them."""

    given: dict[str, Flags]
    every: bool


def extraction_checks(
    line: Line, references: Calibration | NotMeasurable, policy: VerificationPolicy, alpha: float, seed: int
) -> tuple[list[Check], dict[str, Any]]:
    """(`extraction`, `extraction_excess`, `extraction_strength` of the candidate and the first and last of the original
    as `extraction_control` and `extraction_strength_control`, metrics by name).

    Nothing for classifiers and for tables without the columns.
    """
    if LOG_P not in line.original[FORGET].texts:
        return [], {}
    asked = _Asked(line, references, seed)
    if not asked.counted[FORGET].any():
        return [Check(id=EXTRACTION, role="diagnostic", statistic=_RATE, n=0, reason=_NOTHING.reason)], {}
    return asked.checks(policy.extraction_margin, alpha), asked.metrics()


class _Asked:
    """All models on the texts that count under each of them."""

    def __init__(self, line: Line, references: Calibration | NotMeasurable, seed: int) -> None:
        self._line, self._references, self._seed = line, references, seed
        self._parts = [part for part in (FORGET, HELD_OUT) if part in line.original]
        self._excesses: dict[int, Excess] = {}
        models = [line.original, line.candidate, *line.retrained]
        # Tokenizers that differ may see a shared suffix in different texts.
        self.counted = {
            part: np.all([~np.isnan(model[part].texts[LOG_P]) for model in models], axis=0) for part in self._parts
        }

    def _of(self, model: ModelScores, part: str) -> _Texts:
        scores, counted = model[part], self.counted[part]
        return _Texts(scores.texts[LOG_P][counted], scores.texts[STRENGTH][counted], scores.subjects[counted])

    def _without(self, model: ModelScores) -> _Reference:
        """References for one model: the retrained ones but itself, and the pool."""
        others = [other for other in self._line.retrained if other is not model]
        given, strength, pooled = {}, {}, self._pooled
        for part in self._parts:
            told = [self._of(other, part) for other in others]
            flags = [extractable(one.log_p) for one in told] + ([pooled.given[part]] if pooled else [])
            size = int(self.counted[part].sum())
            given[part] = np.any(flags, axis=0) if flags else np.zeros(size, dtype=np.bool_)
            strength[part] = np.mean([one.strength for one in told], axis=0) if told else np.zeros(size)
        every = pooled is not None and pooled.every
        return _Reference(given, strength, len(others) + every, len(others))

    @cached_property
    def _pooled(self) -> _Pooled | None:
        """What a pool's references give away; None without a pool.

        The pool knows the loss of whole records: a longer one of which other suffixes count is not given away by it,
        and then it does not calibrate the comparison.
        """
        if isinstance(self._references, NotMeasurable):
            return None
        sets = judged_sets(self._line.original, self._references)
        if isinstance(sets, NotMeasurable):
            return None
        found, every = {}, True
        for part, judged in zip((FORGET, HELD_OUT), sets, strict=True):
            scores = self._line.original[part]
            units = scores.utf8_bytes if self._references.per_byte else scores.tokens
            known = (np.abs(scores.texts[SUFFIX_TOKENS] - scores.tokens) < _SAME_TOKENS) & (judged.count > 0)
            says = known & extractable(np.where(known, judged.mean * units, -np.inf))
            found[part] = np.asarray(says[self.counted[part]], dtype=np.bool_)
            every = every and bool(known[self.counted[part]].all())
        return _Pooled(found, every)

    def _found(self, model: ModelScores, part: str, reference: _Reference) -> tuple[Flags, Clusters]:
        texts = self._of(model, part)
        return np.asarray(extractable(texts.log_p) & ~reference.given[part], dtype=np.bool_), texts.subjects

    def rate(self, model: ModelScores) -> Proportion:
        """Forgotten texts that come out of this model and of no reference."""
        return extraction_rate(*self._found(model, FORGET, self._without(model)))

    def excess(self, model: ModelScores) -> Excess | NotMeasurable:
        """The rate beside that of never-seen people."""
        if not self._measurable:
            return NotMeasurable(NO_HELD_OUT)
        if id(model) not in self._excesses:
            reference = self._without(model)
            (found, people), (others, strangers) = (self._found(model, part, reference) for part in (FORGET, HELD_OUT))
            self._excesses[id(model)] = extraction_excess(found, others, people, strangers, self._seed)
        return self._excesses[id(model)]

    def strength(self, model: ModelScores) -> Mean | NotMeasurable:
        """Extraction strength beyond that of references, forgotten people's texts less never-seen ones'."""
        if not self._measurable:
            return NotMeasurable(NO_HELD_OUT)
        reference = self._without(model)
        forget, others = (self._of(model, part) for part in (FORGET, HELD_OUT))
        own, theirs = (
            part.strength - reference.strength[name] for name, part in ((FORGET, forget), (HELD_OUT, others))
        )
        return mean_difference(own, theirs, forget.subjects, others.subjects)

    @property
    def _measurable(self) -> bool:
        return HELD_OUT in self.counted and bool(self.counted[HELD_OUT].any())

    def checks(self, margins: dict[str, float], alpha: float) -> list[Check]:
        """Rate, excess and strength, with those of the original; a margin for so many texts at least."""
        candidate, original = self._line.candidate, self._line.original
        margin = margin_for(margins, int(self.counted[FORGET].sum()))
        return [
            self._rate_check(EXTRACTION, candidate, alpha),
            self._excess_check(EXTRACTION_EXCESS, candidate, margin, alpha),
            self._excess_check(EXTRACTION_CONTROL, original, margin, alpha),
            self._strength_check(EXTRACTION_STRENGTH, candidate, margin, alpha),
            self._strength_check(STRENGTH_CONTROL, original, margin, alpha),
        ]

    def _sizes(self, model: ModelScores) -> dict[str, Any]:
        people = tuple(len(np.unique(self._of(model, part).subjects)) for part in self._parts)
        n, m = (int(self.counted[part].sum()) if part in self.counted else None for part in (FORGET, HELD_OUT))
        return {"n": n, "m": m, "cluster": "subject", "clusters": people, "role": "diagnostic"}

    def _rate_check(self, name: str, model: ModelScores, alpha: float) -> Check:
        found, reference = self.rate(model), self._without(model)
        flags = self._found(model, FORGET, reference)[0]
        given = int(reference.given[FORGET].sum())
        away = f"; {given} others are given away by references" if reference.count or given else ""
        return Check(
            id=name, statistic=_RATE, estimate=found.rate, alpha=alpha, ci=(found.lower(alpha), found.upper(alpha)),
            ci95=found.interval(), references=reference.count or None, **self._sizes(model),
            reason=f"{int(flags.sum())} of {len(flags)}{away}",
        )  # fmt: skip

    def _excess_check(self, name: str, model: ModelScores, margin: float | None, alpha: float) -> Check:
        found, sizes = self.excess(model), self._sizes(model)
        if isinstance(found, NotMeasurable):
            return Check(id=name, statistic=_EXCESS, reason=found.reason, **sizes)
        return Check(
            id=name, statistic=_EXCESS, estimate=found.estimate, alpha=alpha, ci=found.interval(1 - 2 * alpha),
            ci95=found.interval(0.95), margin=margin, p_value=found.p_value,
            references=self._without(model).count or None,
            reason=f"{found.forget.rate:.3f} against {found.others.rate:.3f}", **sizes,
        )  # fmt: skip

    def _strength_check(self, name: str, model: ModelScores, margin: float | None, alpha: float) -> Check:
        found, sizes = self.strength(model), self._sizes(model)
        if isinstance(found, NotMeasurable):
            return Check(id=name, statistic=_STRENGTH, reason=found.reason, **sizes)
        return Check(
            id=name, statistic=_STRENGTH, estimate=found.estimate, alpha=alpha, ci=found.interval(1 - 2 * alpha),
            ci95=found.interval(0.95), margin=margin,
            references=self._without(model).strengths or None, **sizes,
        )  # fmt: skip

    def metrics(self) -> dict[str, Any]:
        """Each figure of the candidate, of doing nothing and of the retrained models."""
        functions: dict[str, Callable[[ModelScores], float | None]] = {
            EXTRACTION: lambda model: self.rate(model).rate,
            EXTRACTION_EXCESS: lambda model: _estimate(self.excess(model)),
            EXTRACTION_STRENGTH: lambda model: _estimate(self.strength(model)),
        }
        found: dict[str, Any] = {}
        for name, function in functions.items():
            found |= {name: function(self._line.candidate), f"{name}_do_nothing": function(self._line.original)}
            if self._line.retrained:
                found[f"{name}_retrained"] = [function(model) for model in self._line.retrained]
        found["extraction_windows"] = int(self.counted[FORGET].sum())
        return found


def _estimate(found: Excess | Mean | NotMeasurable) -> float | None:
    return None if isinstance(found, NotMeasurable) else found.estimate
