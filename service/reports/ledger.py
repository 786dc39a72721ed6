"""What the attempts have spent of the error rate, and what the model shows when it is rounded for serving."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.catalogue.precisions import FULL, PRECISIONS
from service.reports.canvas import FORGET, HELD_OUT, INK, QUIET, THIRD, new_figure, style, svg_of
from service.reports.facts import AttemptFacts
from service.verification.schema import Evaluation, Interval
from service.verification.verdict import CHANCE, MEMBERSHIP

_PREFIX = "precision_"


@dataclass(frozen=True)
class Spent:
    """One attempt: the error rate of its gate, 0 where no measurement decided, and that of all attempts before."""

    number: int
    method: str
    state: str
    alpha: float
    before: float


def spending(attempts: Sequence[AttemptFacts]) -> list[Spent]:
    """The ledger in order of the attempts.

    All gates of an attempt have to pass, so its chance of a false pass is that of the weakest gate (intersection-union
    test); the attempts of a job add up (Bonferroni). An exact method is judged by procedure and spends nothing.
    """
    told, before = [], 0.0
    for attempt in attempts:
        alpha = alpha_of(attempt.verification)
        told.append(Spent(attempt.number, attempt.method, attempt.state, alpha, before))
        before += alpha
    return told


def alpha_of(evaluation: Evaluation | None) -> float:
    """The error rate that a measured verdict was reached with; 0 for one by procedure, or none."""
    if evaluation is None or evaluation.basis != "measurement":
        return 0.0
    return max((check.alpha for check in evaluation.checks if check.role == "gate" and check.alpha), default=0.0)


def ledger(rows: Sequence[Spent], allowed: float) -> bytes:
    """A bar for each attempt: what was spent before it, and by it; the policy's error rate as a line."""
    with style("ledger"):
        figure = new_figure(6.8, 0.95 + 0.36 * len(rows))
        axes = figure.subplots()
        places = range(len(rows))
        before, spent = [row.before for row in rows], [row.alpha for row in rows]
        axes.barh(places, before, color=QUIET, alpha=0.35, height=0.6, label="spent before")
        axes.barh(places, spent, left=before, color=HELD_OUT, alpha=0.7, height=0.6, label="by this attempt")
        axes.axvline(allowed, color=INK, linestyle="--", linewidth=1.2, label=f"the policy's alpha, {allowed:g}")
        for place, row in enumerate(rows):
            told = f"{row.alpha:g}" if row.alpha else "nothing"
            axes.text(
                1.02, place, f"{told}; {row.state}", transform=axes.get_yaxis_transform(), va="center", fontsize=9
            )
        axes.set_yticks(places, [f"{row.number}  {row.method}" for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.12 * max([allowed, *(row.before + row.alpha for row in rows)]))
        axes.set_xlabel("error rate alpha, added up over attempts")
        figure.legend(loc="outside upper center", ncols=3, fontsize=8.5)
        return svg_of(figure)


@dataclass(frozen=True)
class Rung:
    """One precision: AUC of the candidate, of the original and of retrained models, where measured."""

    precision: str
    estimate: float
    ci95: Interval | None
    original: float | None
    retrained: tuple[float, ...]


def precision_rungs(evaluation: Evaluation) -> list[Rung]:
    """Weights as they are stored and every rounding that was measured; empty where none was."""
    served = evaluation.serve_precision
    judged = _rung("as published" if served == FULL else f"{served}, as served", MEMBERSHIP, evaluation)
    full = _rung(FULL, f"{MEMBERSHIP}_{FULL}", evaluation) if served != FULL else judged
    rounded = [
        judged if precision == served else _rung(precision, f"{_PREFIX}{precision}", evaluation)
        for precision in PRECISIONS
    ]
    found = [rung for rung in rounded if rung is not None]
    return [full, *found] if full and found else found


def _rung(precision: str, name: str, evaluation: Evaluation) -> Rung | None:
    check = evaluation.check(name)
    if check is None or check.estimate is None:
        return None
    before, anew = evaluation.metrics.get(f"{name}_do_nothing"), evaluation.metrics.get(f"{name}_retrained")
    values = anew if isinstance(anew, list) else [anew]
    original = float(before) if isinstance(before, int | float) else None
    retrained = tuple(float(value) for value in values if isinstance(value, int | float))
    return Rung(precision, check.estimate, check.ci95, original, retrained)


def precision_ladder(rungs: Sequence[Rung]) -> bytes:
    """Membership AUC at each precision: new version with 95 % interval, old version and retrained models beside."""
    with style("precision"):
        figure = new_figure(6.6, 3.2)
        axes = figure.subplots()
        axes.axhline(CHANCE, color=INK, linewidth=0.8, linestyle=":", label="guessing")
        for place, rung in enumerate(rungs):
            first = place == 0
            if rung.ci95 is not None:
                axes.plot([place, place], rung.ci95, "_-", color=FORGET, linewidth=1.3, markersize=9)
            axes.plot(
                place,
                rung.estimate,
                "o",
                color=FORGET,
                markersize=7,
                label="new version, 95 % interval" if first else None,
            )
            if rung.original is not None:
                axes.plot(
                    place - 0.14,
                    rung.original,
                    "+",
                    color=INK,
                    markersize=9,
                    markeredgewidth=1.6,
                    label="old version" if first else None,
                )
            places = [place + 0.14] * len(rung.retrained)
            axes.plot(
                places, rung.retrained, "^", color=THIRD, markersize=6, label="retrained" if first and places else None
            )
        axes.set_xticks(range(len(rungs)), [rung.precision for rung in rungs])
        axes.set_xlim(-0.5, len(rungs) - 0.5)
        axes.set_ylabel("membership AUC")
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)
        return svg_of(figure)
