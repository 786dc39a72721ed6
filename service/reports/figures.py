"""Which figures a job and a request get."""

from collections.abc import Iterable, Iterator
from hashlib import sha256

from service.reports import captions, plots
from service.reports.canvas import MINIMUM, RUG_BELOW
from service.reports.facts import AttemptFacts, JobEvidence, RequestFacts
from service.reports.forest import forest, forest_rows
from service.reports.ledger import ledger, precision_ladder, precision_rungs, spending
from service.reports.planted import canary_exposure
from service.reports.power import power_curve
from service.reports.schema import PlotPart, VersionPart
from service.reports.scores import REFERENCES, ScoreFiles, Scores, auc, read_scores
from service.reports.spoken import Spoken, extraction, of_extraction, read_spoken
from service.reports.strips import strip
from service.reports.wagers import draw_sequence
from service.reports.wording import moment, span
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.verdict import CANARIES, MEMBERSHIP

Drawn = tuple[PlotPart, bytes]


def draw_job(job: JobEvidence, files: ScoreFiles | None) -> list[Drawn]:
    """What decided, what could have been seen, scores and the run of the published attempt, as far as there is
    something to draw. `files`: its score tables, read here and kept nowhere.
    """
    attempt = job.published
    if attempt is None or job.new_version is None:
        return []
    told = attempt.verification
    drawn = list(_judged_figures(job, told)) if told else []
    scores = read_scores(files, told.unit if told else "token") if files else None
    if scores:
        drawn += _score_figures(job, job.new_version, scores, told)
    spoken = read_spoken(files) if files else None
    if spoken:
        drawn.append(_spoken_figure(job, job.new_version, spoken))
    return [*drawn, *_run_figures(job, attempt), *_sequence_figures(job)]


def _judged_figures(job: JobEvidence, told: Evaluation) -> Iterator[Drawn]:
    """Figures of the numbers that the evaluation itself holds."""
    rules = Policy.model_validate(job.policy).verification
    rows = forest_rows(told, rules)
    if rows:
        caption, alt = captions.of_forest(rows, told, job), captions.alt_of_forest(rows)
        title = "What decided" if told.basis == "measurement" else "What was measured beside the procedure"
        yield _part(f"{job.job_id}/forest", title, caption, alt, forest(rows))
    people, canaries = told.check(MEMBERSHIP), told.check(CANARIES)
    effects = captions.smallest_effects(told)
    curve = (
        power_curve(people, rules.auc_margin, canaries, "\n".join(["found with a chance of 80 %:", *effects]))
        if people
        else None
    )
    if people and curve:
        alt = f"Line chart of the smallest detectable AUC against forgotten records. {'; '.join(effects)}."
        caption = captions.of_power(people, told, job)
        yield _part(f"{job.job_id}/power", "What could have been seen", caption, alt, curve)
    rungs = precision_rungs(told)
    if rungs:
        areas = ", ".join(f"{rung.precision} {rung.estimate:.3f}" for rung in rungs)
        check = next((check for check in told.checks if check.id.startswith("precision_")), people)
        alt = f"Membership AUC of the new version at each precision: {areas}."
        drawn, caption = precision_ladder(rungs), captions.of_precision(check, job)
        yield _part(f"{job.job_id}/precision", "Rounded for serving", caption, alt, drawn)


def _score_figures(job: JobEvidence, new: VersionPart, scores: Scores, told: Evaluation | None) -> Iterator[Drawn]:
    """Figures of scores. Fewer than MINIMUM people's records are not drawn; canaries are nobody's."""
    titles = {"original": f"Version {job.base_version.number if job.base_version else '?'}, before"}
    titles["candidate"] = f"Version {new.number}, after"
    retrained = [model.model for model in scores.models if model.model.startswith("retrained")]
    titles |= {name: f"Retrained without them {index}" for index, name in enumerate(retrained, 1)}
    titles[REFERENCES] = "Models that never saw them, mean"
    if scores.n >= MINIMUM:
        yield from _people_figures(job, scores, titles, told)
    planted = canary_exposure(scores, titles)
    if planted:
        caption = captions.of_canaries(scores, told.check(CANARIES) if told else None, job)
        alt = "Share of planted records that are exposed by so many bits or more, before and after the deletion."
        yield _part(f"{job.job_id}/canaries", "Planted records deleted along", caption, alt, planted)


def _spoken_figure(job: JobEvidence, new: VersionPart, spoken: Spoken) -> Drawn:
    old = job.base_version.number if job.base_version else "?"
    titles = {"original": f"Version {old}, before", "candidate": f"Version {new.number}, after"}
    caption = f"{of_extraction(spoken)}. {captions.made_of(job).capitalize()}."
    alt = "Share of forgotten texts that come out within so many queries, before and after, beside texts never seen."
    return _part(f"{job.job_id}/extraction", "What comes out of it", caption, alt, extraction(spoken, titles))


def _people_figures(
    job: JobEvidence, scores: Scores, titles: dict[str, str], told: Evaluation | None
) -> Iterator[Drawn]:
    sizes, versions = captions.sizes_of(scores, told), captions.made_of(job)
    rug = " Each stroke below an axis is one forgotten record." if scores.n < RUG_BELOW else ""
    caption = (
        f"Membership score ({scores.label}) of {sizes}; {versions}. The closer the two shapes after, the harder it is "
        f"to tell who was in the training data. Values beyond the axis are counted in its outermost bars.{rug}"
    )
    alt = "Histograms of membership scores of forgotten and held-out records, one panel for each model version."
    svg = plots.score_histograms(scores, titles)
    yield _part(f"{job.job_id}/scores", "Scores before and after", caption, alt, svg)
    caption = captions.of_strip(scores, told, job)
    alt = "Scores of forgotten records, one row for each model version, over the range of held-out records."
    yield _part(f"{job.job_id}/strip", "Record by record", caption, alt, strip(scores, titles))
    caption = (
        f"Threshold attack on the same scores: {sizes}; {versions}. On the dotted line the attack guesses. "
        "Pale areas around the curves: 95 % bounds of both rates at each threshold by itself (Clopper-Pearson, wider "
        "where one person has several records). In the grey region fewer than three held-out records decide, which "
        "measures nothing."
    )
    attacked = [model for model in scores.models if model.model != REFERENCES]
    areas = ", ".join(f"{titles[model.model]} {auc(model, scores.higher_is_member):.3f}" for model in attacked)
    alt = f"ROC curves of the membership attack on logarithmic axes. Areas under the curve: {areas}."
    yield _part(f"{job.job_id}/roc", "ROC of the membership attack", caption, alt, plots.roc_curves(scores, titles))


def _run_figures(job: JobEvidence, attempt: AttemptFacts) -> Iterator[Drawn]:
    """The losses over the published attempt, and what all attempts spent."""
    curve = plots.unlearning_curve(attempt.curve, attempt.method)
    if curve:
        caption = (
            f"Attempt {attempt.number} ({attempt.method}), made from "
            f"{captions.version_words('version', job.base_version)}. The last point is "
            f"{captions.version_words('version', job.new_version)}. Policy {job.policy_digest[:12]}."
        )
        alt = f"Line chart of mean losses over the optimiser steps of {attempt.method}."
        yield _part(f"{job.job_id}/curve", "Losses over the run", caption, alt, curve)
    rows = spending(job.attempts)
    if any(row.alpha for row in rows):
        allowed = Policy.model_validate(job.policy).verification.alpha
        told = "; ".join(f"attempt {row.number}, {row.method}: {row.alpha:g}, {row.state}" for row in rows)
        alt = f"Error rate spent by each attempt, of {allowed:g} allowed. {told}."
        drawn = ledger(rows, allowed)
        yield _part(f"{job.job_id}/ledger", "Attempts and error rate", captions.of_ledger(job, allowed), alt, drawn)


def _sequence_figures(job: JobEvidence) -> Iterator[Drawn]:
    """The wager over this and earlier publications, where planted records were guessed at."""
    if job.sequence is not None:
        caption, alt = captions.of_sequence(job.sequence, job), captions.alt_of_sequence(job.sequence)
        yield _part(f"{job.job_id}/sequence", "Publications so far", caption, alt, draw_sequence(job.sequence))


def draw_request(request: RequestFacts, jobs: Iterable[JobEvidence]) -> list[Drawn]:
    """The timeline against the deadline."""
    started = [job.started_at for job in jobs if job.started_at]
    published = [job.published_at for job in jobs if job.published_at]
    moments = [("received", request.received_at)]
    if request.acknowledged_at:
        moments.append(("acknowledged", request.acknowledged_at))
    if started:
        moments.append(("job started", min(started)))
    moments.append(("published" if published else "answered", request.completed_at))
    if request.extended_at:
        moments.append(("extended", request.extended_at))
    moments = [moments[0], *sorted(moments[1:], key=lambda entry: entry[1]), ("due", request.due_at)]
    left = (request.due_at - request.completed_at).total_seconds() / 86400
    kept = f"{span(left)} before" if left >= 0 else f"{span(left)} after"
    caption = f"From receipt to the deadline under {request.regulation.upper()}; completed {kept} it (dashed line)."
    alt = "Timeline: " + ", ".join(f"{name} {moment(when)}" for name, when in moments) + "."
    return [_part("timeline", "Timeline against the deadline", caption, alt, plots.timeline(moments))]


def _part(name: str, title: str, caption: str, alt: str, svg: bytes) -> Drawn:
    return PlotPart(name=name, title=title, caption=caption, alt=alt, sha256=sha256(svg).hexdigest()), svg
