"""What the evidence does not show, in plain sentences that depend on what was done and how much of it there was.

A test bounds what a named attack could have found; it proves no absence.
"""

from service.reports.facts import JobEvidence, TargetFacts
from service.verification.limits import copies_limit, precision_limits, reference_limit, trace_limits
from service.verification.schema import Check, Evaluation
from service.verification.verdict import CANARIES, REFERENCE

CHANCE = 0.5
FEW_RECORDS = 33
"""Below this no margin on the membership AUC is narrow enough to say anything (default policy)."""


def limits_of(target: TargetFacts, job: JobEvidence) -> list[str]:
    """The limits of one target's evidence, the weightiest first."""
    if target.outcome != "published" or job.published is None:
        return [*_unpublished(target), *_always(job)]
    evaluation = job.published.verification
    if evaluation is None:
        return _always(job)
    return [
        *_released(job),
        *_basis(evaluation),
        *_sizes(job, evaluation.check("membership_auc")),
        *_positive_control(evaluation.check("positive_control")),
        *_comparison(evaluation),
        *_people(target, job),
        *trace_limits(evaluation.traces, evaluation.basis, evaluation.check(CANARIES)),
        copies_limit(evaluation.records.near_duplicates, job.task),
        reference_limit(evaluation.check(REFERENCE)),
        *precision_limits(evaluation.serve_precision),
        *_sequence(job),
        *_copies(job),
        *_always(job),
    ]


def _released(job: JobEvidence) -> list[str]:
    if job.review is None or job.review.kind != "released":
        return []
    return [
        "The gate did not pass this version: its checks could not tell. A reviewer released it, which adds no "
        "evidence: what the checks left open is open."
    ]


def _basis(evaluation: Evaluation) -> list[str]:
    if evaluation.basis == "procedure":
        return [
            "The verdict rests on procedure: the training record of the new version lists what went into it, and the "
            "digests of data, recipe, code and weights agree with it. Weights alone cannot show which data made them; "
            "whoever doubts the record has to train again from the same data, recipe and seed.",
            "The attacks were run as well and are printed as diagnostics. They did not decide.",
        ]
    return [
        "The verdict rests on measurement by the named checks alone. Other attacks, and attackers who know more, may "
        "find what these did not; differences smaller than the margin would have been missed by design.",
    ]


def _sizes(job: JobEvidence, check: Check | None) -> list[str]:
    if check is None or check.estimate is None:
        return [
            f"Not testable at this size or without held-out records: the membership attack gave no number for the "
            f"{count(job.records, 'forgotten record')}, so residual influence on them was not measured."
        ]
    n, m, smallest = check.n or 0, check.m or 0, check.smallest_detectable
    told = f"The membership attack compared {count(n, 'forgotten record')} with {count(m, 'held-out record')}"
    lines = [
        f"{told}. An AUC that differs from one half by less than about {smallest:.2f} would have been missed."
        if smallest is not None
        else f"{told}; smaller effects than its interval shows would have been missed."
    ]
    if n < FEW_RECORDS:
        lines.append(
            f"{count(n, 'record')} are too few for a population test: only a near-complete failure would have been "
            "noticed, moderate residual influence would not."
        )
    return lines


def _positive_control(control: Check | None) -> list[str]:
    """Whether the same attack finds the records in the old version: without that, finding nothing says little."""
    if control is None or control.ci95 is None:
        return [
            "Whether the attack finds these records in the old version at all was not measured; where it found "
            "nothing before, finding nothing after says little."
        ]
    if control.verdict == "inconclusive" or control.ci95[0] <= CHANCE <= control.ci95[1]:
        return [
            "Nothing was detectable before or after: the same attack did not clearly find these records in the old "
            "version either, so that its result on the new one says little about them."
        ]
    return []


def _comparison(evaluation: Evaluation) -> list[str]:
    """Where the two sets differ anyway, or where a sample stands for the kept records."""
    lines, sizes, blind = [], evaluation.records, evaluation.check("blind_baseline")
    if blind is not None and blind.verdict == "inconclusive":
        lines.append(
            "Forgotten and held-out records can be told apart without any model, so that the attack's AUC on them "
            "cannot be interpreted."
        )
    if sizes.retain_scored < sizes.retain:
        lines.append(f"{sizes.retain_scored:,} of {sizes.retain:,} kept records were scored, drawn at random.")
    return lines


def _people(target: TargetFacts, job: JobEvidence) -> list[str]:
    if job.subjects <= 1:
        return [
            "The run served one person. Statistics over records of one person describe that person's records "
            "together; they do not generalise, and comparing the old and the new version singles this person out."
        ]
    if target.records < job.records:
        return [
            f"The run served {count(job.requests, 'request')} and {count(job.subjects, 'person', 'people')} at once. "
            "The checks describe all their records together, not those of this request alone."
        ]
    return []


def _sequence(job: JobEvidence) -> list[str]:
    if job.sequence is None or not job.sequence.alarm:
        return []
    return [
        f"Over {count(len(job.sequence.steps), 'publication')} since the model was last exact, the planted records "
        "that were deleted along are still known to it, all of them taken together: an alarm of the running wager, "
        f"which without a leak one model in {1 / job.sequence.alpha:.0f} raises at most. The next deletion is by an "
        "exact method.",
    ]


def _copies(job: JobEvidence) -> list[str]:
    old = f"version {job.base_version.number}" if job.base_version else "the old version"
    return [
        f"Copies of {old} that have left this service (downloads, caches, exports, backups kept elsewhere) still hold "
        "what they held. Whoever has both versions can compare them and learn more than from either one.",
    ]


def _unpublished(target: TargetFacts) -> list[str]:
    if target.outcome == "already_deleted":
        return [
            "The records had been dealt with by an earlier request; this request changed nothing, and the evidence "
            "is in that earlier report."
        ]
    return [
        "The look-up compares normalised identifiers with the registered identifier columns. A person whose records "
        "carry other identifiers, or none, is not found by it.",
        "Records of others that mention the person in free text were not searched.",
    ]


def _always(job: JobEvidence) -> list[str]:
    tail = [
        "The report is attested by the operator of the service. The signature shows who said this and that it was not "
        "changed since; it does not show that it is true. No third party has run it again.",
        "The report shows the state at the time it was written. Later destruction of artefacts is recorded in the "
        "audit log. It makes no statement on law.",
    ]
    if job.new_version is not None:
        tail.insert(
            0,
            "The source records are the controller's: the service bars them from later training of this model "
            "(tombstones) and does not delete them from the controller's own systems.",
        )
    return tail


def count(number: int, singular: str, plural: str | None = None) -> str:
    """ "1 record", "1,200 records"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
