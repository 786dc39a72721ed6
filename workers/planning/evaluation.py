"""From model directories and records to an evaluation: load, score once each, hand the tables to `assess`."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from service.catalogue.precisions import FULL, Precision
from service.catalogue.recipes import Recipe
from service.errors import BadModel, Unevaluable
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.statistics import NotMeasurable
from workers.metrics.blind_baseline import Features, extract
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel, load_model
from workers.modeling.problem import Context, Progress
from workers.modeling.progress import part_of
from workers.modeling.records import Records, held_out_key, split_held_out
from workers.modeling.rounding import rounded
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import NO_REFERENCES, Calibration, References, reference_table, tokenizer_of
from workers.planning.checks import BlindFeatures
from workers.planning.extraction_tables import MOST_HELD_OUT, Asked, drawn_people, said
from workers.planning.generation_checks import Spoken, with_generation
from workers.planning.opposed import opposed_by
from workers.planning.problems import Line
from workers.planning.provenance import check_provenance
from workers.planning.robustness_checks import SHARE, Probed, scaled, with_robustness
from workers.planning.score_tables import (
    CANARY,
    CANARY_KEPT,
    CANARY_OUT,
    CANDIDATE,
    FORGET,
    HELD_OUT,
    ORIGINAL,
    RETAIN,
    RETRAINED,
    with_kinds,
)
from workers.planning.served import with_full_precision
from workers.planning.traces import (
    Companions,
    classes_forgotten,
    companions_of,
    difficulty_of,
    retained_copies,
    traces_of,
    trained_tokens,
)
from workers.scoring.score import score

RETAIN_SAMPLE = 4000
BLIND_SAMPLE = 2000


@dataclass(frozen=True)
class _Sets:
    """What is scored. `held_out` is the certification part, None where there is none; `staying` are forgotten people
    of whom some records are retained, `trained` the tokens of training again where its record says them."""

    forget: Records
    retain: Records
    retain_records: int
    held_out: Records | None
    canaries: Companions | None
    staying: frozenset[str]
    trained: float | None

    def named(self) -> list[tuple[str, Records]]:
        sets = [(FORGET, self.forget), (RETAIN, self.retain)]
        if self.held_out is not None:
            sets.append((HELD_OUT, self.held_out))
        if self.canaries is not None:
            sets += [(CANARY, self.canaries.deleted), (CANARY_OUT, self.canaries.outside)]
            if len(self.canaries.kept):
                sets.append((CANARY_KEPT, self.canaries.kept))
        return sets

    def asked(self, seed: int) -> Asked:
        """What a language model is asked to say."""
        others = drawn_people(self.held_out, MOST_HELD_OUT, seed) if self.held_out is not None else None
        return Asked(self.forget, others, self.retain, self.staying, self.trained, seed)


@dataclass(frozen=True)
class _Weights:
    """Digest of the tensors themselves, whatever file they lie in, and whether they are finite."""

    digest: str
    finite: bool


def evaluate(
    *,
    line: Line,
    candidate_dir: Path,
    retrained_dirs: Sequence[Path],
    forget_ids: Sequence[str],
    policy: Policy,
    alpha: float | None,
    ignore_record: bool,
    context: Context,
    data_digest: str | None = None,
    recipe: Recipe | None = None,
    references: References | NotMeasurable = NO_REFERENCES,
    robustness: bool = False,
    serve_precision: Precision = FULL,
) -> tuple[Evaluation, dict[str, pa.Table]]:
    """Judge a candidate directory; returns the evaluation and the score tables by model, with a column `set`.

    Every model is rounded to `serve_precision` first, since that is what people get: checks and tables are of rounded
    weights, and the same attacks on the weights as stored stand beside them as diagnostics. The tables are personal
    data: the caller destroys them. `alpha` None takes the policy's. `data_digest` and `recipe` of the line: None takes
    those of the original's training record. `references`: the gate's side of a pool, or why there is none.
    `robustness` adds what rounding and relearning bring back. Raises BadDataset for an unknown record id, BadModel for
    a directory that cannot be loaded, Unevaluable for empty sets and scores that are not finite.
    """
    sets = _select(line, line.trained(forget_ids), companions_of(line, candidate_dir), context.seed)
    directories = {ORIGINAL: line.base_dir, CANDIDATE: candidate_dir}
    directories |= {f"{RETRAINED}{number}": path for number, path in enumerate(retrained_dirs, 1)}
    known = set(forget_ids), line.trainable_ids
    provenance = check_provenance(candidate_dir, line.base_dir, *known, data_digest, recipe)
    judging = scaled(context, 0.0, SHARE) if robustness else context
    precisions = list(dict.fromkeys((serve_precision, FULL)))
    scored, passes, weights = _score_all(directories, sets, line.task, judging, precisions)
    tables = scored[serve_precision]
    tokenizers = {tokenizer_of(path) for path in directories.values()}
    per_byte = line.task == "causal-lm" and len(tokenizers) > 1
    seen = Facts(precision=serve_precision, provenance=provenance, per_byte=per_byte, forward_passes=passes)
    facts = _facts(replace(seen, seed=context.seed), line, candidate_dir, forget_ids, sets, weights)
    blind = _blind_features(sets, context.seed)
    calibration = references.calibration(tokenizers) if isinstance(references, References) else references
    options: dict[str, Any] = {"alpha": alpha, "ignore_record": ignore_record, "references": calibration}
    found = assess(tables, line.task, policy, blind=blind, facts=facts, **options)
    if serve_precision != FULL:
        found = with_full_precision(found, scored[FULL], policy, facts, alpha, calibration)
    if robustness:
        found = with_robustness(found, scored, Probed(directories, sets.forget, sets.held_out, recipe), context)
    told = with_kinds(tables, facts.canary_kinds)
    return found, _beside_references(told, calibration, line.task)


def _facts(
    seen: Facts,
    line: Line,
    candidate_dir: Path,
    forget_ids: Sequence[str],
    sets: _Sets,
    weights: dict[str, _Weights],
) -> Facts:
    """`seen` with what the line and the candidate say of themselves, beside any score."""
    return replace(
        seen,
        files_differ=weights[ORIGINAL].digest != weights[CANDIDATE].digest,
        weights_finite=weights[CANDIDATE].finite,
        retain_records=sets.retain_records,
        traces=traces_of(line, candidate_dir),
        near_duplicates=retained_copies(line, forget_ids),
        canary_kinds=sets.canaries.kinds if sets.canaries is not None else {},
        canary_opposites=sets.canaries.opposites if sets.canaries is not None else {},
        difficulty=difficulty_of(line, forget_ids),
        forgotten_classes=classes_forgotten(line, forget_ids),
        opposed=opposed_by(candidate_dir),
    )


def with_extraction(
    found: Evaluation,
    line: Line,
    candidate_dir: Path,
    retrained_dirs: Sequence[Path],
    forget_ids: Sequence[str],
    context: Context,
) -> Evaluation:
    """The evaluation of these directories with what their language models say when they are let to speak.

    Diagnostics that change no verdict; each model is loaded once more. Raises as `evaluate` does.
    """
    sets = _select(line, line.trained(forget_ids), None, context.seed)
    directories = {ORIGINAL: line.base_dir, CANDIDATE: candidate_dir}
    directories |= {f"{RETRAINED}{number}": path for number, path in enumerate(retrained_dirs, 1)}
    return with_generation(found, Spoken(directories, sets.forget, sets.retain, sets.held_out), context)


def _beside_references(
    tables: dict[str, pa.Table], calibration: Calibration | NotMeasurable, task: str
) -> dict[str, pa.Table]:
    """The score tables and what the references say of the same records, for the report's figures."""
    if isinstance(calibration, NotMeasurable):
        return tables
    known = reference_table(tables[ORIGINAL], calibration, task)
    return tables if known is None else tables | {"references": known}


def _select(line: Line, forget_ids: Collection[str], canaries: Companions | None, seed: int) -> _Sets:
    data = line.people
    rows = np.unique(data.rows_of(forget_ids)) if forget_ids else np.zeros(0, dtype=np.int64)
    if not len(rows):
        raise Unevaluable("the forget set is empty: name at least one record id")
    kept = np.setdiff1d(np.arange(len(data)), rows)
    if not len(kept):
        raise Unevaluable("the forget set is the whole data set: nothing is retained to compare with")
    chosen = kept
    if len(kept) > RETAIN_SAMPLE:
        chosen = np.sort(np.random.default_rng(seed).choice(kept, RETAIN_SAMPLE, replace=False))
    certification = None
    if line.held_out is not None and len(line.held_out):
        if line.holdout_digest is None:
            raise Unevaluable("the digest of the held-out set is missing, so its subjects cannot be split")
        certification = split_held_out(line.held_out, held_out_key(line.holdout_digest))[1]
    subjects = np.asarray(data.subjects)
    return _Sets(
        data.subset(rows.tolist()),
        data.subset(chosen.tolist()),
        len(kept),
        certification if certification is not None and len(certification) else None,
        canaries,
        frozenset(np.intersect1d(subjects[rows], subjects[kept]).tolist()),
        trained_tokens(line),
    )


def _score_all(
    directories: dict[str, Path], sets: _Sets, task: str, context: Context, precisions: Sequence[Precision]
) -> tuple[dict[Precision, dict[str, pa.Table]], dict[str, int], dict[str, _Weights]]:
    """Load each model, score each record once in each precision, and let the model go before the next.

    Tables by precision and model, passes by model, and the weights of the first precision: those that are judged.
    """
    tables: dict[Precision, dict[str, pa.Table]] = {precision: {} for precision in precisions}
    passes: dict[str, int] = {}
    weights: dict[str, _Weights] = {}
    share = 1 / (len(directories) * len(precisions))
    for number, (name, directory) in enumerate(directories.items()):
        loaded = _load(name, directory, task, context.device)
        passes[name] = 0
        for at, precision in enumerate(precisions):
            coarse = loaded if precision == FULL else replace(loaded, model=rounded(loaded.model, precision))
            if not at:
                weights[name] = _weights(coarse)
            start = (number * len(precisions) + at) * share
            told = f"scoring the {name} model" + ("" if precision == FULL else f", rounded to {precision}")
            tables[precision][name], done = _score_sets(coarse, sets, _within(context, start, share, told))
            passes[name] += done
        del loaded, coarse
    return tables, passes, weights


def _score_sets(loaded: LoadedModel, sets: _Sets, context: Context) -> tuple[pa.Table, int]:
    """(scores of every set with a column `set`, forward passes)."""
    asked = sets.asked(context.seed) if isinstance(loaded.task, CausalLanguageModelling) else None
    total = sum(len(records) for _, records in sets.named()) + (len(asked) if asked is not None else 0)
    parts, done, passes = [], 0, 0
    for part, records in sets.named():
        scored = score(loaded, records, part_of(context, done / total, (done + len(records)) / total, part))
        parts.append(scored.table.append_column("set", pa.array([part] * len(records), pa.string())))
        passes += scored.forward_passes
        done += len(records)
    table = pa.concat_tables(parts)
    if asked is None:
        return table, passes
    told = said(loaded, asked, part_of(context, done / total, 1.0, "asked"))
    return told.onto(table), passes + told.forward_passes


def _load(name: str, directory: Path, task: str, device: torch.device) -> LoadedModel:
    try:
        return load_model(directory, task, device)
    except BadModel as error:
        raise BadModel(f"the {name} model: {error.detail}") from error


def _within(context: Context, start: float, share: float, message: str) -> Context:
    def report(progress: Progress) -> None:
        context.progress(Progress(start + share * progress.fraction, None, message, progress.metrics))

    return replace(context, progress=report)


def _weights(loaded: LoadedModel) -> _Weights:
    digest, finite = hashlib.sha256(), True
    for name, tensor in sorted(loaded.model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        finite = finite and (not values.is_floating_point() or bool(torch.isfinite(values).all()))
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return _Weights(digest.hexdigest(), finite)


def _blind_features(sets: _Sets, seed: int) -> BlindFeatures | None:
    if sets.held_out is None:
        return None
    forget, held_out = _sample(sets.forget, seed), _sample(sets.held_out, seed + 1)
    return BlindFeatures(
        _features(forget), np.asarray(forget.subjects), _features(held_out), np.asarray(held_out.subjects)
    )


def _sample(records: Records, seed: int) -> Records:
    if len(records) <= BLIND_SAMPLE:
        return records
    return records.subset(
        np.sort(np.random.default_rng(seed).choice(len(records), BLIND_SAMPLE, replace=False)).tolist()
    )


def _features(records: Records) -> Features:
    columns: dict[str, list[Any]] = records.take(range(len(records)))
    return extract(columns)
