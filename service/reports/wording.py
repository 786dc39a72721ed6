"""How numbers, times and findings are said: one place, used by every form of the report.

Nothing is ever called erased, guaranteed, certified or compliant: a test bounds what a named attack could have found.
"""

from datetime import UTC, datetime

from service.reports.schema import ReviewPart, TargetPart
from service.verification.release import PUBLISHED_STATES
from service.verification.schema import Check, Evaluation, Interval

GRADES = {
    "A": "exact method, judged by procedure",
    "B": "qualified approximate method, judged by measurement with companion canaries at the narrow margin",
    "C": "approximate method, judged by measurement; not qualified, or without companion canaries at the narrow margin",
}
EXACT_PHRASES = {"retrain": "retrained from scratch without the listed records (exact, by procedure)"}


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def moment(value: datetime | None) -> str:
    """A time in UTC, to the minute; a dash for none. Month names: no reader can take the day for the month."""
    if value is None:
        return "–"
    value = value.astimezone(UTC)
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}, {value:%H:%M} UTC"


def number(value: float | None, digits: int = 3) -> str:
    """A figure for a table; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"


def interval(bounds: Interval | None) -> str:
    """ "0.470 to 0.570"; a dash where there is none."""
    return f"{number(bounds[0])} to {number(bounds[1])}" if bounds else "–"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def span(days: float) -> str:
    """A number of days as people say it; the sign is left to the caller."""
    total = abs(days) * 86400
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if total >= size:
            return f"{total / size:.1f} {unit}"
    return f"{total:.0f} second{'' if round(total) == 1 else 's'}"


def published_method(target: TargetPart) -> str:
    """The method of the attempt that was published."""
    chosen = [attempt.method for attempt in target.attempts if attempt.state in PUBLISHED_STATES]
    return chosen[-1] if chosen else "–"


def reviewed(review: ReviewPart) -> str:
    """What a reviewer decided, when and under which key, as a sentence; of a release also why."""
    when = f"on {moment(review.at)} under the key {review.key_id}"
    if review.kind == "approved":
        return f"A reviewer approved the publication {when}."
    why = " ".join((review.reason or "").split())
    return f"Released by a reviewer {when}, although the gate was inconclusive, for the reason: “{why}”"


_CHECK_NAMES = {
    "membership_auc": "Membership attack (AUC)",
    "positive_control": "The same attack on the old version (AUC)",
    "near_duplicates": "Retained copies of forgotten records",
    "difficulty_baseline": "How hard the records were to learn (AUC)",
    "blind_baseline": "Classifier without the model (AUC)",
    "utility": "Utility on held-out records",
    "provenance": "Training record",
    "sanity": "Loads, finite outputs",
    "distinct": "Differs from the old version",
    "tpr_at_fpr": "Found at a false positive rate of 1 %",
    "forgetting_rate_mia": "Forgetting rate (membership)",
    "forgetting_rate_accuracy": "Forgetting rate (accuracy)",
    "memory_retention_rate": "Memory retention rate",
    "reference_auc": "Membership attack with reference models (AUC)",
    "reference_control": "The same on the old version, with reference models",
    "companion_canaries": "Planted records deleted along (AUC)",
    "companion_rate": "Planted records found at a false positive rate of 5 %",
    "canary_control": "Planted records on the old version (AUC)",
    "per_record": "Record by record, with reference models",
    "record_control": "Record by record on the old version",
    "canary_exposure": "Exposure of planted records (bits)",
    "canary_exposure_control": "Exposure of planted records on the old version (bits)",
    "retained_harm": "Planted records that stay, increase of the AUC",
    "precision_bf16": "Membership attack, weights rounded to bf16 (AUC)",
    "precision_int8": "Membership attack, weights rounded to int8 (AUC)",
    "precision_int4": "Membership attack, weights rounded to int4 (AUC)",
    "membership_auc_fp32": "Membership attack, weights as stored (AUC)",
    "reference_auc_fp32": "Membership attack with reference models, weights as stored (AUC)",
    "companion_canaries_fp32": "Planted records deleted along, weights as stored (AUC)",
    "utility_fp32": "Utility on held-out records, weights as stored",
    "relearning_excess": "Brought back by relearning, beyond retrained models",
    "perturbed_forget_gap": "Accuracy lost on changed forgotten records",
    "shifted_forget_gap": "Accuracy lost on forgotten images shifted by a generator",
    "zlib_auc": "Loss over compressed length (AUC)",
    "min_k_auc": "Least likely tokens, Min-K% (AUC)",
    "min_k_plus_plus_auc": "Least likely tokens, Min-K%++ (AUC)",
    "reference_loss_auc": "Loss less that of reference models (AUC)",
    "churn": "Newly wrong on retained records",
    "canary_rank_one": "Planted records that come before every never-trained one",
    "extraction": "Forgotten texts that come out within 1,000 queries",
    "extraction_excess": "The same, beyond never-seen people's texts",
    "extraction_control": "Texts that come out of the old version, beyond never-seen people's",
    "extraction_strength": "Extraction strength beyond never-seen people's texts",
    "extraction_strength_control": "Extraction strength of the old version",
    "value_exposure": "Exposure of people's numbers (bits)",
    "value_exposure_control": "Exposure of people's numbers in the old version (bits)",
    "verbmem": "Texts continued word by word (VerbMem, ROUGE-L)",
    "knowmem": "Prompts answered as in the text (KnowMem, ROUGE-L)",
    "leak_at_20": "Best of 20 sampled answers (ROUGE-L)",
    "wordings_extraction": "Texts that come out in the worst of 18 wordings",
    "rouge_retained": "Answers on retained texts (ROUGE-L)",
    "gibberish_rate": "Answers on retained texts that are gibberish",
}


def named(reason: str, evaluation: Evaluation) -> str:
    """A reason that begins with the id of a check, with the check's name for people instead."""
    name, colon, rest = reason.partition(": ")
    check = evaluation.check(name)
    return f"{check_name(check)}{colon}{rest}" if check is not None else reason


def words_of(name: str) -> str | None:
    """The name of the check with this id for people; None where it has none."""
    return _CHECK_NAMES.get(name)


def check_name(check: Check) -> str:
    """The name of a check for people."""
    return _CHECK_NAMES.get(check.id, check.id.replace("_", " ").capitalize())
