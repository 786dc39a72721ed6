"""The section on verification: checks, models, metrics, and the figures that show them."""

from typing import Any

from service.reports.blocks import Block, Cell, bullets, figures, sentence, table, text
from service.reports.schema import TargetPart
from service.reports.wording import check_name, interval, number
from service.verification.schema import Check, Evaluation

_HEAD = ["Check", "Role", "Estimate", "Decides", "95 % interval", "Margin", "n / m", "Power", "Finds", "Result"]

_NOT_DRAWN = (
    "Scores are not drawn: they need a held-out set and at least five forgotten records, since with fewer a point in a "
    "figure would be a person."
)


def verification(target: TargetPart) -> list[Block]:
    """Every check of the published attempt; empty where nothing was published."""
    evaluation = target.verification
    if evaluation is None:
        return []
    return [
        text(_summary(evaluation)),
        table(_HEAD, [_row(check) for check in evaluation.checks], "llrllrrrrl", wide=True),
        bullets([_explain(check) for check in evaluation.checks]),
        *_models(evaluation),
        *_metrics(evaluation),
        *(figures(target.plots, "scores", "roc") or [text(_NOT_DRAWN)]),
    ]


def _summary(evaluation: Evaluation) -> str:
    sizes = evaluation.records
    scored = f" ({sizes.retain_scored:,} of them scored)" if sizes.retain_scored != sizes.retain else ""
    levels = sorted({round(100 * (1 - 2 * check.alpha), 2) for check in evaluation.checks if check.alpha})
    told = " and ".join(f"{level:g} %" for level in levels)
    return (
        f"Basis: {evaluation.basis}. Grade: {evaluation.grade or 'none'}. Records: {sizes.forget:,} forgotten, "
        f"{sizes.retain:,} kept{scored}, {sizes.held_out:,} held out and never trained on. "
        + (f"The interval that decides a pass has the level {told}. " if told else "")
        + "Power is the chance that a model without any leak passes; finds is the smallest effect that is found "
        "with a chance of 80 %."
    )


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
        people += f" ({check.clusters[0]:,} and {check.clusters[1]:,} of them)"
    reason = f" {sentence(check.reason[:1].upper() + check.reason[1:])}" if check.reason else ""
    return f"{check_name(check)}: {sentence(check.statistic + people)}{reason}"


def _models(evaluation: Evaluation) -> list[Block]:
    """Mean loss and accuracy or perplexity on each set, a column for each model."""
    models = evaluation.models
    names = ["old version", "new version", *(f"retrained {index}" for index, _ in enumerate(models.retrained, 1))]
    sets = {"forget": "forgotten records", "retain": "kept records", "held_out": "held-out records"}
    rows: list[list[Cell]] = []
    for part, words in sets.items():
        scored = [getattr(model, part) for model in (models.original, models.candidate, *models.retrained)]
        for figure, name in (("loss", "mean loss (nats)"), ("accuracy", "accuracy"), ("perplexity", "perplexity")):
            values = [getattr(numbers, figure, None) for numbers in scored]
            if any(value is not None for value in values):
                rows.append([f"{words}: {name}", *(number(value) for value in values)])
    return [table(["Figure", *names], rows, "l" + "r" * len(names))] if rows else []


def _metrics(evaluation: Evaluation) -> list[Block]:
    rows: list[list[Cell]] = [[name.replace("_", " "), number(value)] for name, value in _flat(evaluation.metrics)]
    return [table(["Metric (diagnostic)", "Value"], rows, "lr")] if rows else []


def _flat(metrics: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    pairs: list[tuple[str, float]] = []
    for key, value in metrics.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}: ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            pairs.append((f"{prefix}{key}", value))
    return pairs
