"""What the self-test's verdicts come to: shares with intervals by retrain, and the promises."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.gate_candidates import AT_MARGIN, COLLAPSED, CONSTANT, DO_NOTHING, RETRAIN
from benchmarks.gate_judging import ATTEMPTS, POLICY, Verdicts
from benchmarks.record import Result, Target
from service.verification.proportions import Proportion
from service.verification.statistics import clustered_mean

COLUMNS = ("forget sets, candidate", "jobs", "pass", "fail", "inconclusive", "power allows", "of these pass")
CANDIDATES = (DO_NOTHING, RETRAIN, COLLAPSED, CONSTANT)


@dataclass(frozen=True)
class Share:
    """A share of jobs and its 95 % interval, by retrain: the jobs of one retrain have the same model."""

    found: int
    total: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        return self.found / self.total

    def text(self) -> str:
        """`found of total (low-high)`."""
        return f"{self.found} of {self.total} ({self.low:.2f}–{self.high:.2f})"


def share(hits: Sequence[bool], clusters: Sequence[str]) -> Share | None:
    """Exact bounds of the effective counts of clustered data (Korn and Graubard 1998); None without any job.

    Where all jobs agree there is no variance to estimate, and each retrain counts as a single trial.
    """
    if not hits:
        return None
    values, groups = np.array(hits, dtype=np.float64), len(set(clusters))
    plain = Proportion(float(values.sum()), len(hits))
    effect = len(hits) / groups
    if 0 < plain.rate < 1 and groups > 1:
        alone = plain.rate * (1 - plain.rate) / len(hits)
        effect = max(1.0, clustered_mean(values, np.array(clusters)).se ** 2 / alone)
    low, high = plain.effective(effect).interval()
    return Share(int(values.sum()), len(hits), low, high)


def tell(result: Result, found: Sequence[Verdicts], references: bool) -> None:
    """Rows, measurements and promises of the verdicts with references, or of those without."""
    group = [each for each in found if each.references == references]
    title = "with references" if references else "without references"
    result.rows.append([f"[bold]{title}[/bold]", *[""] * (len(COLUMNS) - 1)])
    for kind in dict.fromkeys(each.kind for each in group):
        for name in CANDIDATES:
            _add_row(result, [each for each in group if (each.kind, each.candidate) == (kind, name)], references)
    _add_noise(result, group, references)
    _promise(result, group, title)


def _add_row(result: Result, group: Sequence[Verdicts], references: bool) -> None:
    kind, name = group[0].kind, group[0].candidate
    counts = {verdict: sum(each.verdict == verdict for each in group) for verdict in ("pass", "fail", "inconclusive")}
    powered = [each for each in group if each.powered]
    passed = _passing(powered)
    cells = [str(len(group)), *map(str, counts.values()), str(len(powered)), passed.text() if passed else ""]
    result.rows.append([f"  {kind}: {name}", *cells])
    blocked = sorted({each.reason for each in group if each.verdict != "pass"}) if name == RETRAIN else []
    result.measurements.append(
        {"references": references, "kind": kind, "candidate": name, "jobs": len(group), **counts}
        | {"powered": len(powered), "powered_pass": passed, "why_not": blocked}
    )


def _passing(group: Sequence[Verdicts]) -> Share | None:
    return share([each.verdict == "pass" for each in group], [each.retrain for each in group])


def _add_noise(result: Result, group: Sequence[Verdicts], references: bool) -> None:
    """Single attempts, and the best of five: at alpha each, and at alpha over five."""
    noise = [each for each in group if each.candidate == AT_MARGIN and each.powered]
    if not noise:
        return
    figures = _attempts(noise)
    for name, figure in figures.items():
        result.rows.append([f"  {AT_MARGIN}, {name}", str(figure.total), str(figure.found), "", "", "", figure.text()])
    off = np.array([value * (-1) ** at for each in noise for at, value in enumerate(each.estimates)])
    result.measurements.append(
        {"references": references, "candidate": AT_MARGIN, "figures": figures}
        | {"mean_error_of_estimate": float(off.mean()), "se_of_mean": float(off.std() / np.sqrt(len(off)))}
    )


def _attempts(noise: Sequence[Verdicts]) -> dict[str, Share]:
    retrains = [each.retrain for each in noise]
    one = [verdict == "pass" for each in noise for verdict in each.attempts]
    found = {
        "one attempt": share(one, [name for name in retrains for _ in range(ATTEMPTS)]),
        "any of five": share(["pass" in each.attempts for each in noise], retrains),
        "any of five at a fifth of alpha": share(["pass" in each.shared for each in noise], retrains),
    }
    return {name: value for name, value in found.items() if value is not None}


def _promise(result: Result, group: Sequence[Verdicts], title: str) -> None:
    def rate(name: str, verdict: str) -> float:
        hits = [each.verdict == verdict for each in group if each.candidate == name]
        return sum(hits) / len(hits)

    result.targets += [
        Target(f"{title}: doing nothing passes", rate(DO_NOTHING, "pass"), 0.05),
        Target(f"{title}: a true retrain fails", rate(RETRAIN, "fail"), 0.0),
        Target(f"{title}: a collapsed model passes", rate(COLLAPSED, "pass"), 0.0),
        Target(f"{title}: a constant margin passes", rate(CONSTANT, "pass"), 0.0),
    ]
    powered = [each for each in group if each.powered]
    if not powered:
        result.notes.append(f"{title}: no set reached power 0.9")
        return
    passed = _passing([each for each in powered if each.candidate == RETRAIN])
    if passed:
        result.targets.append(Target(f"{title}: a retrain passes where power allows", passed.rate, 0.9, at_most=False))
    alpha = POLICY.verification.alpha
    for name, figure in _attempts([each for each in powered if each.candidate == AT_MARGIN]).items():
        if name != "any of five":  # the one that is not allowed: shown for comparison
            result.targets.append(Target(f"{title}: {AT_MARGIN}, {name}, lower 95 % bound", figure.low, alpha))
