"""The section on verification: checks, models, metrics, and the figures that show them."""

from typing import Any

from service.catalogue.precisions import FULL
from service.reports.blocks import Block, Cell, bullets, figures, sentence, table, text
from service.reports.names import metric_name
from service.reports.schema import TargetPart
from service.reports.wording import check_name, interval, named, number
from service.verification.schema import Check, Evaluation

_HEAD = ["Check", "Role", "Estimate", "Decides", "95 % interval", "Margin", "n / m", "Power", "Finds", "Result"]

_FIGURES = {
    "loss": "mean loss (nats)",
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    "nats_per_byte": "nats per UTF-8 byte",
}
_SUFFIXES = ("_do_nothing", "_retrained")
_COLUMNS = ("_do_nothing", "", "_retrained")
_NOT_DRAWN = (
    "Scores are not drawn: they need a held-out set and at least five forgotten records. With fewer, whoever knows one "
    "of the people could find that person's point in a figure (re-identification)."
)


def verification(target: TargetPart) -> list[Block]:
    """Every check of the published attempt; empty where nothing was published."""
    evaluation = target.verification
    if evaluation is None:
        return []
    return [
        text(_summary(evaluation)),
        *figures(target.plots, "forest", floating=True),
        table(_HEAD, [_row(check) for check in evaluation.checks], "llrllrrrrl", wide=True),
        bullets([_explain(check) for check in evaluation.checks]),
        *_models(evaluation),
        *_metrics(evaluation),
        *figures(target.plots, "power", floating=True),
        *(figures(target.plots, "scores", "strip", "roc", floating=True) or [text(_NOT_DRAWN)]),
        *figures(target.plots, "canaries", "extraction", "precision", "sequence", floating=True),
    ]


def _summary(evaluation: Evaluation) -> str:
    sizes = evaluation.records
    scored = f" ({sizes.retain_scored:,} of them scored)" if sizes.retain_scored != sizes.retain else ""
    levels = sorted({round(100 * (1 - 2 * check.alpha), 2) for check in evaluation.checks if check.alpha})
    told = " and ".join(f"{level:g} %" for level in levels)
    verdict = (
        f"{evaluation.verdict}, since {named(evaluation.reason, evaluation)}"
        if evaluation.reason
        else evaluation.verdict
    )
    served = evaluation.serve_precision
    lines = [
        f"Basis: {evaluation.basis}. Grade: {evaluation.grade or 'none'}. Verdict: {sentence(verdict)}",
        f"Records: {sizes.forget:,} forgotten, {sizes.retain:,} kept{scored}, {sizes.held_out:,} held out and never "
        "trained on.",
        f"The interval that decides a pass has the level {told}." if told else "",
        f"The model is served with weights rounded to {served}: so it was scored, and as it is stored beside that "
        "(fp32)."
        if served != FULL
        else "",
        "Power is the chance that a model without any leak passes; finds is the smallest effect that is found with a "
        "chance of 80 %.",
    ]
    return " ".join(line for line in lines if line)


def _row(check: Check) -> list[Cell]:
    sizes = f"{number(check.n)} / {number(check.m)}" if check.m is not None else number(check.n)
    return [
        check_name(check),
        check.role,
        number(check.estimate),
        interval(check.ci),
        interval(check.ci95),
        number(check.margin),
        sizes,
        f"{check.power_at_zero:.0%}" if check.power_at_zero is not None else "–",
        number(check.smallest_detectable),
        {"verdict": check.verdict},
    ]


def _explain(check: Check) -> str:
    people = f", clustered by {check.cluster}" if check.cluster else ""
    if check.clusters:
        people += f" ({' and '.join(f'{size:,}' for size in check.clusters)} of them)"
    reason = f" {sentence(check.reason[:1].upper() + check.reason[1:])}" if check.reason else ""
    return f"{check_name(check)}: {sentence(check.statistic + people)}{reason}"


def _models(evaluation: Evaluation) -> list[Block]:
    """Mean loss and accuracy or perplexity on each set, a column for each model."""
    models = evaluation.models
    names = ["Old version", "New version", *(f"Retrained {index}" for index, _ in enumerate(models.retrained, 1))]
    sets = {"forget": "forgotten records", "retain": "kept records", "held_out": "held-out records"}
    rows: list[list[Cell]] = []
    for part, words in sets.items():
        scored = [getattr(model, part) for model in (models.original, models.candidate, *models.retrained)]
        for figure, name in _FIGURES.items():
            values = [getattr(numbers, figure, None) for numbers in scored]
            if any(value is not None for value in values):
                rows.append([f"{words}: {name}", *(number(value) for value in values)])
    return [table(["Figure", *names], rows, "l" + "r" * len(names))] if rows else []


def _metrics(evaluation: Evaluation) -> list[Block]:
    """Diagnostic numbers beside those of doing nothing and of retrained models, where they were measured."""
    metrics = evaluation.metrics
    names = [name for name in metrics if not name.endswith(_SUFFIXES) and _told(metrics[name]) != "–"]
    rows: list[list[Cell]] = [
        [metric_name(name), *(_told(metrics.get(name + suffix)) for suffix in _COLUMNS)] for name in names
    ]
    head = ["Metric (diagnostic)", "Old version", "New version", "Retrained"]
    used = [0, *(column for column in (1, 2, 3) if any(row[column] != "–" for row in rows))]
    rows = [[row[column] for column in used] for row in rows]
    return [table([head[column] for column in used], rows, "l" + "r" * (len(used) - 1))] if rows else []


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_told(entry) for entry in value) or "–"
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else "–"
