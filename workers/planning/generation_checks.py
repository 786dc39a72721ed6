"""What language models say when they are let to speak: `lethe evaluate --extraction`, diagnostics that decide nothing.

On samples of forgotten, retained and held-out texts: greedy continuations and answers beside the truth (VerbMem and
KnowMem of MUSE, arXiv 2407.06460), the best of 20 samples (leak@k, arXiv 2511.04934), the worst of eighteen wordings of
a prompt (arXiv 2410.02879), and what is left of answers on retained texts. Each model is loaded once more.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.verification.schema import Check, Evaluation
from service.verification.statistics import Array, Clusters, clustered_mean
from workers.metrics.extraction import extractable, leak_at_k, suffix_log_probability, worst_case
from workers.metrics.gibberish import gibberish
from workers.metrics.rouge import harmonic_mean, rouge_l
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel, load_model
from workers.modeling.problem import Context
from workers.modeling.progress import part_of
from workers.modeling.records import Records
from workers.planning.score_tables import CANDIDATE, FORGET, HELD_OUT, ORIGINAL, RETAIN, RETRAINED
from workers.scoring.extraction import (
    SAMPLES,
    Decoding,
    Windows,
    forced,
    half_windows,
    joined,
    record_windows,
    sampled,
)
from workers.scoring.wordings import wordings

TEXTS = 64
VERBMEM, KNOWMEM, LEAK, WORDINGS = "verbmem", "knowmem", f"leak_at_{SAMPLES}", "wordings_extraction"
ROUGE, GIBBERISH, UTILITY = "rouge_retained", "gibberish_rate", "model_utility"
_GREEDY = Decoding(temperature=0.0)

_STATISTICS = {
    VERBMEM: "ROUGE-L F1 of greedy continuations of forgotten texts' first halves",
    KNOWMEM: "ROUGE-L F1 of answers to forgotten prompts",
    LEAK: f"best ROUGE-L recall of {SAMPLES} sampled answers to forgotten prompts",
    WORDINGS: f"share of forgotten texts extractable in one of {len(wordings('a b'))} wordings of the prompt",
    ROUGE: "ROUGE-L recall of answers to retained prompts",
    GIBBERISH: "share of answers to retained prompts that are gibberish",
}
_OF = {ROUGE: RETAIN, GIBBERISH: RETAIN}
"""The set that a figure of the check is of, where it is not the forgotten one."""

Figures = Mapping[str, Mapping[str, Array]]
"""Figure -> set -> value of each of its texts."""


@dataclass(frozen=True)
class Spoken:
    """Directories by model name, and the sets that are drawn from; `held_out` is None where there are none."""

    directories: Mapping[str, Path]
    forget: Records
    retain: Records
    held_out: Records | None

    def drawn(self, seed: int) -> dict[str, Records]:
        """At most TEXTS records of each set, drawn at random."""
        sets = {FORGET: self.forget, RETAIN: self.retain}
        sets |= {HELD_OUT: self.held_out} if self.held_out is not None else {}
        return {
            part: records.subset(np.sort(np.random.default_rng(seed).permutation(len(records))[:TEXTS]).tolist())
            for part, records in sets.items()
        }


def with_generation(found: Evaluation, spoken: Spoken, context: Context) -> Evaluation:
    """The evaluation with what its language models say, and the forward passes (batches) that took.

    The evaluation of a classifier stays as it is. Raises Cancelled, BadModel for a directory that cannot be loaded any
    more.
    """
    if found.task != CausalLanguageModelling.name:
        return found
    drawn, figures, passes = spoken.drawn(context.seed), {}, dict(found.forward_passes)
    for number, (name, directory) in enumerate(spoken.directories.items()):
        share = part_of(
            context, number / len(spoken.directories), (number + 1) / len(spoken.directories), f"the {name} model"
        )
        loaded = load_model(directory, found.task, context.device)
        with _counted(loaded) as calls:
            figures[name] = _figures(loaded, drawn, share)
        passes[name] = passes.get(name, 0) + len(calls)
    subjects = {part: np.asarray(records.subjects) for part, records in drawn.items()}
    checks = [_check(name, figures[CANDIDATE][name], subjects) for name in _STATISTICS if name in figures[CANDIDATE]]
    return found.model_copy(
        update={
            "checks": [*found.checks, *checks],
            "metrics": found.metrics | _metrics(figures),
            "forward_passes": passes,
        }
    )


@contextmanager
def _counted(loaded: LoadedModel) -> Iterator[list[None]]:
    """A list with an entry for each forward pass of the model; its body is called however its head is computed."""
    calls: list[None] = []
    hook = loaded.model.base_model.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        hook.remove()


def _figures(loaded: LoadedModel, drawn: Mapping[str, Records], context: Context) -> dict[str, dict[str, Array]]:
    """Every figure of one model on every set that it is taken of."""
    task = loaded.task
    assert isinstance(task, CausalLanguageModelling)  # noqa: S101  (language models alone come here)
    found: dict[str, dict[str, Array]] = {}
    language = [text for records in drawn.values() for text in _truths(task, half_windows(task, records))]
    for at, (part, records) in enumerate(drawn.items()):
        share = part_of(context, at / len(drawn), (at + 1) / len(drawn), part)
        halves = half_windows(task, records)
        prompted = "prompt" in records.roles
        whole = record_windows(task, records) if prompted else halves
        continued = _said(loaded, halves, part_of(share, 0.0, 0.2, "continuations"))
        answers = _said(loaded, whole, part_of(share, 0.2, 0.4, "answers")) if prompted else continued
        values = {VERBMEM: rouge_l(continued, _truths(task, halves), "f1")}
        truths = _truths(task, whole)
        if prompted:
            values[KNOWMEM] = rouge_l(answers, truths, "f1")
        values |= {ROUGE: rouge_l(answers, truths, "recall"), GIBBERISH: gibberish(answers, language)}
        values["probability"] = _probability(loaded, whole, part_of(share, 0.4, 0.5, "probabilities"))
        if part != RETAIN:
            values[LEAK] = _best(loaded, whole, truths, part_of(share, 0.5, 0.9, "samples"))
            values[WORDINGS] = _worst(loaded, task, whole, part_of(share, 0.9, 1.0, "wordings"))
        for name, one in values.items():
            found.setdefault(name, {})[part] = one
    return found


def _truths(task: CausalLanguageModelling, windows: Windows) -> list[str]:
    return [str(task.tokenizer.decode(suffix, skip_special_tokens=True)) for suffix in windows.suffixes]


def _said(loaded: LoadedModel, windows: Windows, context: Context) -> list[str]:
    return [texts[0] for texts in sampled(loaded, windows, context, samples=1, decoding=_GREEDY)]


def _probability(loaded: LoadedModel, windows: Windows, context: Context) -> Array:
    """Geometric mean probability of a token of each suffix."""
    read = forced(loaded, windows, context)
    lengths = np.array([len(suffix) for suffix in windows.suffixes])
    return np.asarray(np.exp(suffix_log_probability(read.log_probs, read.rows, len(windows)) / lengths))


def _best(loaded: LoadedModel, windows: Windows, truths: list[str], context: Context) -> Array:
    texts = sampled(loaded, windows, context)
    scores = [rouge_l(row, [truth] * len(row), "recall") for row, truth in zip(texts, truths, strict=True)]
    return leak_at_k(np.stack(scores), SAMPLES)


def _worst(loaded: LoadedModel, task: CausalLanguageModelling, windows: Windows, context: Context) -> Array:
    """1 for each text that is extractable in one wording of its prompt or another."""
    texts = [wordings(str(task.tokenizer.decode(prefix))) for prefix in windows.prefixes]
    turned = []
    for at in range(len(texts[0])):
        coded = task.tokenizer([row[at] for row in texts])["input_ids"]
        # The end of too long a wording stays: it stands next to what is asked for.
        room = [task.max_length - len(suffix) for suffix in windows.suffixes]
        prefixes = [
            (tokens or prefix)[-most:] for tokens, prefix, most in zip(coded, windows.prefixes, room, strict=True)
        ]
        turned.append(Windows(prefixes, windows.suffixes, windows.rows))
    every = joined(turned)
    read = forced(loaded, every, context)
    log_p = suffix_log_probability(read.log_probs, read.rows, len(every)).reshape(len(turned), len(windows))
    return np.asarray(extractable(worst_case(log_p)), dtype=np.float64)


def _check(name: str, values: Mapping[str, Array], subjects: Mapping[str, Clusters]) -> Check:
    part = _OF.get(name, FORGET)
    mean = clustered_mean(values[part], subjects[part])
    others = f"{values[HELD_OUT].mean():.3f} of never-seen ones" if HELD_OUT in values and part == FORGET else None
    return Check(
        id=name,
        role="diagnostic",
        statistic=_STATISTICS[name],
        estimate=mean.estimate,
        ci95=mean.interval(0.95),
        n=mean.n,
        m=len(values[HELD_OUT]) if others else None,
        cluster="subject",
        clusters=(mean.clusters,),
        reason=others,
    )


def _metrics(figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Means of the candidate, of doing nothing and of retrained models, and of the candidate on never-seen texts."""
    found: dict[str, Any] = {}
    for name in _STATISTICS:
        if name not in figures[CANDIDATE]:
            continue
        part = _OF.get(name, FORGET)
        found |= _beside(name, {model: float(one[name][part].mean()) for model, one in figures.items()})
        if part == FORGET and HELD_OUT in figures[CANDIDATE][name]:
            found[f"{name}_never_seen"] = float(figures[CANDIDATE][name][HELD_OUT].mean())
    return found | _beside(UTILITY, {model: _utility(one) for model, one in figures.items()})


def _utility(figures: Figures) -> float:
    """Harmonic mean of probability and ROUGE-L recall on retained and, where there are any, held-out texts."""
    parts = [part for part in (RETAIN, HELD_OUT) if part in figures[ROUGE]]
    return harmonic_mean([float(figures[name][part].mean()) for name in ("probability", ROUGE) for part in parts])


def _beside(name: str, values: Mapping[str, float]) -> dict[str, Any]:
    retrained = [value for model, value in values.items() if model.startswith(RETRAINED)]
    found: dict[str, Any] = {name: values[CANDIDATE], f"{name}_do_nothing": values[ORIGINAL]}
    return found | ({f"{name}_retrained": retrained} if retrained else {})
