"""What is written under the figures: sizes, who counts as one, versions and policy, in the same words everywhere."""

from collections.abc import Sequence

from service.reports.canvas import RUG_BELOW
from service.reports.facts import JobEvidence
from service.reports.forest import Row
from service.reports.limits import count
from service.reports.power import shift_as_auc, smallest_words
from service.reports.schema import SequencePart, VersionPart
from service.reports.scores import Scores
from service.reports.wording import check_name, number
from service.verification.schema import Check, Evaluation
from service.verification.verdict import CANARIES, MEMBERSHIP, PER_RECORD


def version_words(word: str, version: VersionPart | None) -> str:
    """ "version 2 (bbbbbbbbbbbb)"."""
    return f"{word} {version.number} ({version.digest[:12]})" if version else f"an unknown {word}"


def made_of(job: JobEvidence) -> str:
    """Both versions and the policy, as every figure names them."""
    both = f"{version_words('version', job.base_version)} and {version_words('version', job.new_version)}"
    return f"{both}; policy {job.policy_digest[:12]}"


def people_words(check: Check | None) -> str:
    """Who counts as one observation: ", clustered by subject (12 and 40)"; empty where nothing was clustered."""
    if check is None or not check.cluster:
        return ""
    counts = f" ({' and '.join(f'{size:,}' for size in check.clusters)} of them)" if check.clusters else ""
    unit = "planted record" if check.cluster == "canary" else check.cluster
    return f", clustered by {unit}{counts}"


def sizes_of(scores: Scores, evaluation: Evaluation | None) -> str:
    """How many records the score figures show, and of how many people."""
    told = f"n = {scores.n:,} forgotten and m = {scores.m:,} held-out records that no version was trained on"
    return told + people_words(evaluation.check(MEMBERSHIP) if evaluation else None)


def of_forest(rows: Sequence[Row], evaluation: Evaluation, job: JobEvidence) -> str:
    """How to read it, at which level each interval decides, who counts as one, and gates without a number."""
    levels = sorted({round(100 * (1 - 2 * row.check.alpha), 2) for row in rows if row.check.alpha})
    told = " or ".join(f"{level:g} %" for level in levels)
    drawn = {row.check.id for row in rows}
    others = [check for check in evaluation.checks if check.role == "gate" and check.id not in drawn]
    bare = "; ".join(f"{check_name(check)}: {check.verdict}" for check in others)
    units = "; ".join(f"{check_name(row.check)}{people_words(row.check)}" for row in rows if row.check.cluster)
    return (
        f"Shape: estimate; thick line: the interval that decides a pass ({told}); thin line with ends: 95 % interval, "
        "which decides a fail; grey: what the policy's margin allows. A check passes when its thick line lies inside "
        f"the grey band, fails when its thin line lies outside of it, and is inconclusive otherwise. {units}. "
        + (f"Gates that are not drawn: {bare}. " if bare else "")
        + f"{made_of(job).capitalize()}."
    )


def alt_of_forest(rows: Sequence[Row]) -> str:
    """The figure in words, for those who do not see it."""
    told = [
        f"{check_name(row.check)} {number(row.estimate)}, interval {number(row.ci[0])} to {number(row.ci[1])}, "
        f"{row.check.verdict}"
        for row in rows
    ]
    return f"Forest plot of checks. {'; '.join(told)}."


def smallest_effects(evaluation: Evaluation) -> list[str]:
    """A line for each attack that was measured: the smallest effect that it finds with a chance of 80 %."""
    people, canaries = evaluation.check(MEMBERSHIP), evaluation.check(CANARIES)
    single = evaluation.check(PER_RECORD)
    lines = []
    if people is not None and people.n:
        lines.append(f"this request, n = {people.n:,}: {smallest_words(people)}")
    if canaries is not None and canaries.estimate is not None:
        lines.append(f"planted records, c = {canaries.n:,}: {smallest_words(canaries)}")
    if single is not None and single.estimate is not None and single.smallest_detectable is not None:
        shift = f"{single.smallest_detectable:.2f} standard deviations"
        auc = shift_as_auc(single.smallest_detectable)
        lines.append(f"record by record, n = {single.n:,}: mean shift of {shift} (AUC {auc:.2f})")
    return lines


def of_power(people: Check, evaluation: Evaluation, job: JobEvidence) -> str:
    """What the curve is of."""
    effects = "; ".join(smallest_effects(evaluation))
    alpha = f"{people.alpha:g}" if people.alpha else "the policy's alpha"
    return (
        f"Smallest AUC that a one-sided test at {alpha} tells from one half with a chance of 80 %, from sizes and the "
        f"old version alone, before the new one was scored. With m = {people.m:,} held-out records"
        f"{people_words(people)}. Smallest detectable effects: {effects}. Smaller ones would most likely have been "
        f"missed. {made_of(job).capitalize()}."
    )


def of_strip(scores: Scores, evaluation: Evaluation | None, job: JobEvidence) -> str:
    """What one mark is, without saying whose."""
    single = (
        "Each point is one forgotten record, and a line joins the same record from row to row; nothing says whose it is"
        if scores.n < RUG_BELOW
        else "Forgotten records are shown by their quantiles, since there are enough of them"
    )
    return (
        f"{scores.label[:1].upper()}{scores.label[1:]} of {sizes_of(scores, evaluation)}. {single}. Bars: quantiles of "
        f"5, 25, 50, 75 and 95 %. {made_of(job).capitalize()}."
    )


def of_canaries(scores: Scores, check: Check | None, job: JobEvidence) -> str:
    """Exposure, its null line, and how many canaries."""
    planted = scores.models[0].planted
    sizes = f"c = {len(planted[0]):,} planted records deleted along and r = {len(planted[1]):,}" if planted else ""
    verdict = f" The check on them: {check.verdict}." if check else ""
    return (
        f"Exposure of a planted record: by how many bits it stands out among others of its make (Carlini et al. 2019); "
        f"{sizes} that no training saw, every planted record an observation of its own, ranked within its kind. On the "
        "dotted line nothing is left of them; above it is a leak, far below it over-forgetting."
        f"{verdict} {made_of(job).capitalize()}."
    )


def of_ledger(job: JobEvidence, allowed: float) -> str:
    """How attempts share the error rate."""
    judged = sum(1 for attempt in job.attempts if attempt.verification)
    return (
        f"{count(judged, 'judged attempt')} of this job. The chance that a leak beyond the margin passes adds up "
        f"over attempts, so each measured one may spend a part of the policy's alpha of {allowed:g}; exact methods "
        f"are judged by procedure and spend nothing. {made_of(job).capitalize()}."
    )


def of_precision(check: Check | None, job: JobEvidence) -> str:
    """Why rounding matters."""
    sizes = "sizes as above"
    if check is not None and check.n:
        sizes = f"n = {check.n:,}" + (f" and m = {check.m:,}" if check.m else "")
    return (
        "The membership attack on the weights rounded for serving: an edit by small updates can vanish between two "
        f"steps of a coarser grid. {sizes}{people_words(check)}. {made_of(job).capitalize()}."
    )


def of_sequence(told: SequencePart, job: JobEvidence) -> str:
    """What is bet on, and what the line means."""
    guesses = sum(step.guesses for step in told.steps)
    verdict = "It was reached: the next deletion is exact." if told.alarm else "It was not reached."
    return (
        f"Top: a wager that the model still knows the planted records that were deleted along, over "
        f"{count(len(told.steps), 'publication')} by measurement since the model was last exact, {guesses:,} guesses. "
        f"Without a leak the e-value ever reaches {1 / told.alpha:g}, the dashed line, with probability {told.alpha:g} "
        f"at most, however often it is looked at. {verdict} Middle: share of right guesses over all publications so "
        f"far, with bounds that hold at all times at once with probability {1 - told.alpha:g}; dotted: guessing. "
        f"Bottom: the error rate that each publication's attempts had between them. {made_of(job).capitalize()}."
    )


def alt_of_sequence(told: SequencePart) -> str:
    """The figure in words."""
    steps = "; ".join(
        f"version {step.version}: {number(step.right)} of {step.guesses:,} guesses right, "
        f"log e-value {step.log_wealth:.2f}, bounds {number(step.low)} to {number(step.high)}"
        for step in told.steps
    )
    return f"Wager over publications. {steps}. {'Alarm.' if told.alarm else 'No alarm.'}"
