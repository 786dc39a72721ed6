"""Which figures a job and a request get, and what is written under them."""

from collections.abc import Iterable
from hashlib import sha256

from service.reports import plots
from service.reports.facts import JobEvidence, RequestFacts
from service.reports.schema import PlotPart, VersionPart
from service.reports.scores import ScoreFiles, Scores, auc, read_scores
from service.reports.wording import moment, span

Drawn = tuple[PlotPart, bytes]


def draw_job(job: JobEvidence, files: ScoreFiles | None) -> list[Drawn]:
    """Score histograms, ROC and unlearning curve of the published attempt, as far as there is something to draw."""
    attempt = job.published
    if attempt is None or job.new_version is None:
        return []
    drawn: list[Drawn] = []
    unit = attempt.verification.unit if attempt.verification else "token"
    scores = read_scores(files, unit) if files else None
    if scores and scores.n >= plots.MINIMUM:
        drawn += _score_figures(job, job.new_version, scores)
    curve = plots.unlearning_curve(attempt.curve, attempt.method)
    if curve:
        caption = (
            f"Attempt {attempt.number} ({attempt.method}), made from {_version('version', job.base_version)}. "
            f"The last point is {_version('version', job.new_version)}."
        )
        alt = f"Line chart of mean losses over the optimiser steps of {attempt.method}."
        drawn.append(_part(f"{job.job_id}/curve", "Losses over the run", caption, alt, curve))
    return drawn


def _score_figures(job: JobEvidence, new: VersionPart, scores: Scores) -> Iterable[Drawn]:
    titles = {"original": f"Version {job.base_version.number if job.base_version else '?'}, before"}
    titles["candidate"] = f"Version {new.number}, after"
    retrained = [model.model for model in scores.models if model.model.startswith("retrained")]
    titles |= {name: f"Retrained without them {index}" for index, name in enumerate(retrained, 1)}
    sizes = f"n = {scores.n:,} forgotten and m = {scores.m:,} held-out records that no version was trained on"
    versions = (
        f"{_version('version', job.base_version)} and {_version('version', new)}; policy {job.policy_digest[:12]}"
    )
    rug = " Each stroke below an axis is one forgotten record." if scores.n < plots.RUG_BELOW else ""
    caption = (
        f"Membership score ({scores.label}) of {sizes}; {versions}. The closer the two shapes after, the harder it is "
        f"to tell who was in the training data. Values beyond the axis are counted in its outermost bars.{rug}"
    )
    alt = "Histograms of membership scores of forgotten and held-out records, one panel for each model version."
    svg = plots.score_histograms(scores, titles)
    yield _part(f"{job.job_id}/scores", "Scores before and after", caption, alt, svg)
    caption = (
        f"Threshold attack on the same scores: {sizes}; {versions}. On the dotted line the attack guesses. "
        "In the shaded region fewer than three held-out records decide, which measures nothing."
    )
    areas = ", ".join(f"{titles[model.model]} {auc(model, scores.higher_is_member):.3f}" for model in scores.models)
    alt = f"ROC curves of the membership attack on logarithmic axes. Areas under the curve: {areas}."
    yield _part(f"{job.job_id}/roc", "ROC of the membership attack", caption, alt, plots.roc_curves(scores, titles))


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


def _version(word: str, version: VersionPart | None) -> str:
    return f"{word} {version.number} ({version.digest[:12]})" if version else f"an unknown {word}"
