"""Forest plot: what decided, on axes of like measures, with both intervals and the margin that the policy allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.reports.canvas import FORGET, HELD_OUT, INK, QUIET, THIRD, new_figure, style, svg_of
from service.reports.wording import check_name
from service.verification.exposure import NULL_MEAN
from service.verification.language import (
    EXPOSURE,
    EXPOSURE_CONTROL,
    EXTRACTION_CONTROL,
    EXTRACTION_EXCESS,
    EXTRACTION_STRENGTH,
    STRENGTH_CONTROL,
    VALUE_CONTROL,
    VALUES,
)
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check, Evaluation, Interval
from service.verification.verdict import (
    CANARIES,
    CANARY_CONTROL,
    CANARY_RATE,
    CHANCE,
    CONTROL,
    MEMBERSHIP,
    PER_RECORD,
    PERPLEXITY,
    RECORD_CONTROL,
    REFERENCE,
    REFERENCE_CONTROL,
    UTILITY,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROLS = {
    MEMBERSHIP: CONTROL,
    REFERENCE: REFERENCE_CONTROL,
    PER_RECORD: RECORD_CONTROL,
    CANARIES: CANARY_CONTROL,
    EXTRACTION_EXCESS: EXTRACTION_CONTROL,
    EXTRACTION_STRENGTH: STRENGTH_CONTROL,
    EXPOSURE: EXPOSURE_CONTROL,
    VALUES: VALUE_CONTROL,
}
"""Attacks, and the check that is the same attack on the old version."""

_SHAPES = {"pass": ("o", THIRD, True), "fail": ("X", FORGET, True), "inconclusive": ("D", HELD_OUT, False)}
_OTHER = ("s", QUIET, False)
_AXES = {
    "auc": "AUC (one half is guessing; both sides count)",
    "z": "mean z (0: like a model that never saw the records)",
    "rate": "share of planted records found",
    "texts": "beyond never-seen people's texts: share that comes out, extraction strength",
    "bits": "mean exposure in bits (1.44: no trace)",
    "accuracy": "accuracy difference on held-out records",
    "ratio": "perplexity ratio on held-out records",
}
_NULL = {"auc": CHANCE, "z": 0.0, "rate": 0.05, "texts": 0.0, "bits": NULL_MEAN, "accuracy": 0.0, "ratio": 1.0}
_KINDS = {
    PER_RECORD: "z",
    CANARY_RATE: "rate",
    EXTRACTION_EXCESS: "texts",
    EXTRACTION_STRENGTH: "texts",
    EXPOSURE: "bits",
    VALUES: "bits",
}
_HALF = 0.36
_ROW, _EDGES = 0.46, 0.62


@dataclass(frozen=True)
class Row:
    """One check with its numbers; `before` is the estimate of the same attack on the old version, `lowest` the bound
    below of a check that has another one than its margin."""

    check: Check
    kind: str
    estimate: float
    ci: Interval
    ci95: Interval
    margin: float
    before: float | None
    lowest: float | None

    @property
    def allowed(self) -> tuple[float | None, float | None]:
        """The bounds that the deciding interval has to keep to; None where a side is open."""
        if self.kind in ("auc", "z"):
            return _NULL[self.kind] - self.margin, _NULL[self.kind] + self.margin
        return (-self.margin, None) if self.kind == "accuracy" else (self.lowest, self.margin)


def forest_rows(evaluation: Evaluation, rules: VerificationPolicy) -> list[Row]:
    """Gates that have numbers, and attacks that were measured without deciding; like measures one after the other."""
    rows = [row for check in evaluation.checks if (row := _row(check, evaluation, rules)) is not None]
    return sorted(rows, key=lambda row: list(_AXES).index(row.kind))


def _row(check: Check, evaluation: Evaluation, rules: VerificationPolicy) -> Row | None:
    kind = _kind(check)
    if kind is None or check.estimate is None or check.ci is None or check.ci95 is None or check.margin is None:
        return None
    control = evaluation.check(CONTROLS.get(check.id, ""))
    before = control.estimate if control is not None else None
    lowest = rules.exposure_lowest if check.id == EXPOSURE else None
    return Row(check, kind, check.estimate, check.ci, check.ci95, check.margin, before, lowest)


def _kind(check: Check) -> str | None:
    if check.id in (MEMBERSHIP, REFERENCE, CANARIES):
        return "auc"
    if check.id == UTILITY:
        return "ratio" if check.statistic == PERPLEXITY else "accuracy"
    return _KINDS.get(check.id)


def forest(rows: Sequence[Row]) -> bytes:
    """One panel for each measure among `rows`, which must not be empty; verdicts as words and as shapes."""
    panels = [[row for row in rows if row.kind == kind] for kind in _AXES]
    panels = [panel for panel in panels if panel]
    heights = [_EDGES + _ROW * len(panel) for panel in panels]
    with style("forest"):
        figure = new_figure(7.0, sum(heights) + 0.45)
        every = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, panel in zip(every, panels, strict=True):
            _panel(axes, panel)
        _legend(every[0], any(row.before is not None for row in rows))
        return svg_of(figure)


def _panel(axes: "Axes", rows: Sequence[Row]) -> None:
    kind = rows[0].kind
    low, high = _limits(rows)
    axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5))
    axes.axvline(_NULL[kind], color=INK, linewidth=0.8, linestyle=":")
    for place, row in enumerate(rows):
        _draw(axes, place, row, low, high)
    axes.set_yticks(range(len(rows)), [_label(row.check) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(_AXES[kind])


def _limits(rows: Sequence[Row]) -> Interval:
    """Everything that is drawn, with room around; an AUC and a rate end at 0 and 1."""
    kind = rows[0].kind
    values = [_NULL[kind]]
    for row in rows:
        bounds = [bound for bound in row.allowed if bound is not None]
        values += [*row.ci, *row.ci95, *bounds, *([row.before] if row.before is not None else [])]
    room = 0.06 * (max(values) - min(values))
    low, high = min(values) - room, max(values) + room
    if kind == "rate":
        return 0.0, min(1.0, high)
    return (max(0.0, low), min(1.0, high)) if kind == "auc" else (low, high)


def _draw(axes: "Axes", place: int, row: Row, low: float, high: float) -> None:
    left, right = (end if bound is None else bound for bound, end in zip(row.allowed, (low, high), strict=True))
    axes.fill_between([left, right], place - _HALF, place + _HALF, color=QUIET, alpha=0.2, linewidth=0)
    for bound in row.allowed:
        if bound is not None:
            axes.plot([bound, bound], [place - _HALF, place + _HALF], color=QUIET, linewidth=1)
    shape, colour, filled = _SHAPES.get(row.check.verdict, _OTHER)
    axes.plot(row.ci95, [place, place], "|-", color=colour, linewidth=1.1, markersize=8)
    axes.plot(row.ci, [place, place], "-", color=colour, linewidth=4.2, alpha=0.55, solid_capstyle="butt")
    inside = colour if filled else "white"
    axes.plot(row.estimate, place, shape, color=colour, markerfacecolor=inside, markersize=8, markeredgewidth=1.6)
    if row.before is not None:
        axes.plot(row.before, place, "+", color=INK, markersize=9, markeredgewidth=1.5)
    told = row.check.verdict + ("" if row.check.role == "gate" else "\n(diagnostic)")
    axes.text(1.015, place, told, transform=axes.get_yaxis_transform(), va="center", fontsize=9, fontweight="bold")


def _label(check: Check) -> str:
    """The name, and under it the sizes; a long name takes two lines."""
    name = check_name(check)
    sizes = f"n = {check.n:,}" + (f", m = {check.m:,}" if check.m is not None else "")
    if len(name) > 30:
        cut = name.rfind(" ", 0, 34)
        name = f"{name[:cut]}\n{name[cut + 1 :]}"
    return f"{name}\n{sizes}" if name.count("\n") == 0 else f"{name}; {sizes}"


def _legend(axes: "Axes", controls: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # Every verdict is in it, whatever this report has: the reader learns the shapes once.
    shapes = [*((name, *look) for name, look in _SHAPES.items()), ("not judged", *_OTHER)]
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], marker=shape, linestyle="", color=colour, markerfacecolor=colour if filled else "white", label=name
        )
        for name, shape, colour, filled in shapes
    ]
    handles.append(Patch(color=QUIET, alpha=0.3, linewidth=0, label="allowed by the margin"))
    if controls:
        handles.append(Line2D([], [], marker="+", linestyle="", color=INK, markeredgewidth=1.5, label="old version"))
    parent = axes.get_figure()
    if parent is not None:
        parent.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8, columnspacing=1.1)
