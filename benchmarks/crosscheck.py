"""Do our statistics and attacks agree with implementations that others wrote?

The same questions, drawn once from a fixed seed, go to our functions and to scipy, scikit-learn, statsmodels,
privacy-estimates, confidenceinterval, sacroml and rouge-score. They need not be installed beside Lethe:
`--interpreter` names a Python that has them, and what is missing there is said. Every agreement has a largest
difference that is allowed.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.record import Result, Target
from service.verification.equivalence import equivalence
from service.verification.exposure import exposure, ranks
from service.verification.multiple import benjamini_hochberg, holm
from service.verification.one_run import epsilon_from_rates
from service.verification.proportions import Proportion, newcombe
from service.verification.quantiles import clopper_pearson, student_quantile
from service.verification.statistics import auc_design, clustered_auc, clustered_mean
from workers.metrics.extraction import leak_at_k, queries_needed
from workers.metrics.membership_auc import membership_auc
from workers.metrics.reference_auc import calibrated_scores
from workers.metrics.rouge import rouge_l
from workers.metrics.tpr_at_fpr import OperatingPoint, tpr_at_fpr

OTHERS = Path(__file__).parent / "crosscheck_others.py"
COLUMNS = ("question", "asked", "figures", "largest difference", "allowed", "")
LIMIT_SECONDS = 600
MEMBERS, STRANGERS, REFERENCES, DRAWN = 400, 1500, 64, 40
TEXTS, SAMPLES = 120, 20

Question = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """One question: what we answer, and how far others may be from it."""

    name: str
    ours: Callable[[Question], Any]
    allowed: float
    note: str = ""


def run(quick: bool = False, interpreter: str | None = None) -> Result:
    """Ask `interpreter`, or where there is none our own; `quick` asks the same."""
    del quick
    asked = questions()
    told = _ask(interpreter or sys.executable, asked)
    title = "Our statistics and attacks beside implementations of others"
    result = Result("crosscheck", title, 1, COLUMNS)
    for compared in COMPARED:
        for package, answers in told["answers"].items():
            if compared.name in answers:
                _add(result, compared, package, answers, asked)
    _add_lira(result, told["answers"].get("sacroml", {}), asked)
    result.settings = {"versions": told["versions"], "missing": told["missing"]}
    result.notes += [f"{name} {number}" for name, number in told["versions"].items()]
    result.notes += [f"not asked: {name} ({why})" for name, why in told["missing"].items()]
    if told["missing"] and interpreter is None:
        result.notes.append("--interpreter takes a Python that has these packages")
    return result


def questions() -> Question:
    """What everybody is asked: scores, counts, p-values, references, as JSON."""
    draw = np.random.default_rng(0)
    proportions = [[found, trials] for trials in (5, 20, 100, 2000) for found in {0, 1, trials // 3, trials}]
    # Ties, which a formula may forget: scores are rounded.
    return {
        "members": np.round(draw.normal(0.5, 1, MEMBERS), 2).tolist(),
        "others": np.round(draw.normal(0, 1, STRANGERS), 2).tolist(),
        "paired": np.round(draw.normal(0.1, 1, (2, 200)), 6).tolist(),
        "margin": 0.25,
        "proportions": proportions,
        "pairs": [[one, other] for one in proportions[:6] for other in proportions[4:10]],
        "p_values": draw.random(50).tolist(),
        "quantiles": [[p, df] for p in (0.6, 0.95, 0.975, 0.999) for df in (1, 2, 9, 74, 2000)],
        "delta": 1e-5,
        "alpha": 0.1,
        "counts": _counts(draw),
        "lira": _references(draw),
        "texts": _texts(draw),
        "canaries": draw.normal(-1, 1, 72).tolist(),
        "references": draw.normal(0, 1, 1024).tolist(),
        "suffix_log_p": [-1e-9, *(-draw.exponential(8, 60)).tolist()],
        "leaks": draw.binomial(SAMPLES, [0, 1, *draw.random(40)]).tolist(),
        "k": [1, 5, SAMPLES],
    }


def _texts(draw: np.random.Generator) -> list[list[str]]:
    """Pairs of a text and its truth, with capitals, digits and marks; some are the same, some have nothing in common,
    one of either is empty. ASCII, since rouge-score drops all other letters."""
    words = [
        f"{first}{second}" for first in ("Re", "lo", "ka", "12", "n") for second in ("turn", "Mp", "3", "-Y", "?!")
    ]
    pairs = [[_sentence(words, draw), _sentence(words, draw)] for _ in range(TEXTS)]
    same, nothing = _sentence(words, draw), " ".join(["other"] * 7)
    return [*pairs, [same, same], [same, nothing], ["", same], [same, "... !"]]


def _sentence(words: list[str], draw: np.random.Generator) -> str:
    return ", ".join(draw.choice(words, int(draw.integers(1, 30))).tolist())


def _counts(draw: np.random.Generator) -> list[dict[str, int]]:
    """The example of privacy-estimates, then attacks of every strength."""
    found = [{"TP": 487, "TN": 1, "FP": 512, "FN": 0}]
    for _ in range(DRAWN):
        positives, negatives = (int(size) for size in draw.integers(20, 1000, 2))
        true, false = (
            int(draw.binomial(positives, draw.uniform(0.5, 1))),
            int(draw.binomial(negatives, draw.uniform(0, 0.5))),
        )
        found.append({"TP": true, "FN": positives - true, "FP": false, "TN": negatives - false})
    return found


def _references(draw: np.random.Generator) -> dict[str, Any]:
    """Logits of a target model and of 64 references of 600 records, half of them members."""
    hard, member = draw.normal(0, 1.5, 600), np.repeat([1, 0], 300)
    references = hard[:, None] + draw.normal(0, 1, (600, REFERENCES))
    target = hard + 0.8 * member + draw.normal(0, 1, 600)
    return {"target": target.tolist(), "references": references.tolist(), "member": member.tolist()}


def _ask(interpreter: str, asked: Question) -> dict[str, Any]:
    done = subprocess.run(
        [interpreter, str(OTHERS)],
        input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{interpreter} {OTHERS.name} exited {done.returncode}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _sides(asked: Question) -> tuple[Any, Any, Any, Any]:
    members, others = np.array(asked["members"]), np.array(asked["others"])
    return members, others, np.arange(len(members)), np.arange(len(others))


def _rate(asked: Question) -> float:
    members, others, subjects, _ = _sides(asked)
    found = tpr_at_fpr(members, others, subjects)
    assert isinstance(found, OperatingPoint)
    return found.rate


def _tost(asked: Question) -> float:
    first, second = np.array(asked["paired"])
    mean = clustered_mean(first - second, np.arange(len(first)))
    return equivalence(mean.estimate, mean.se, mean.clusters - 1, asked["margin"]).p_value


def _epsilon(asked: Question) -> list[float]:
    return [
        epsilon_from_rates(
            Proportion(count["FP"], count["FP"] + count["TN"]),
            Proportion(count["FN"], count["FN"] + count["TP"]),
            asked["alpha"],
            asked["delta"],
        )
        for count in asked["counts"]
    ]


def _rouge(asked: Question, kind: Literal["recall", "f1"]) -> list[float]:
    said, truths = zip(*asked["texts"], strict=True)
    found: list[float] = rouge_l(said, truths, kind).tolist()
    return found


def _exposures(asked: Question) -> list[float]:
    references = np.array(asked["references"])
    bits: list[float] = exposure(ranks(np.array(asked["canaries"]), references), len(references)).tolist()
    return bits


def _leaks(asked: Question) -> list[list[float]]:
    flags = np.arange(SAMPLES)[None, :] < np.array(asked["leaks"])[:, None]
    return [leak_at_k(flags, k).tolist() for k in asked["k"]]


COMPARED = (
    Compared("AUC", lambda asked: membership_auc(*_sides(asked)).auc, 1e-8),
    Compared(
        "standard error of an AUC (bootstrap)",
        lambda asked: clustered_auc(*_sides(asked)).se,
        0.001,
        "DeLong, each record a person; 1,000 resamples",
    ),
    Compared("standard error of an AUC (DeLong)", lambda asked: clustered_auc(*_sides(asked)).se, 1e-9),
    Compared(
        "null error of an AUC",
        lambda asked: auc_design(MEMBERS, STRANGERS, (1.0, 1.0), (MEMBERS, STRANGERS)).se,
        1e-12,
    ),
    Compared("TPR at 1 % FPR", _rate, 0.01, "sacroml interpolates between thresholds"),
    Compared("TOST, paired", _tost, 1e-9),
    Compared("Clopper-Pearson", lambda asked: [clopper_pearson(*pair) for pair in asked["proportions"]], 1e-9),
    Compared("Wilson", lambda asked: [Proportion(*pair).score_interval() for pair in asked["proportions"]], 1e-9),
    Compared(
        "Newcombe",
        lambda asked: [newcombe(Proportion(*one), Proportion(*other)) for one, other in asked["pairs"]],
        1e-9,
    ),
    Compared("Holm", lambda asked: holm(np.array(asked["p_values"])).tolist(), 1e-12),
    Compared("Benjamini-Hochberg", lambda asked: benjamini_hochberg(np.array(asked["p_values"])).tolist(), 1e-12),
    Compared("quantiles of Student's t", lambda asked: [student_quantile(*pair) for pair in asked["quantiles"]], 1e-6),
    Compared("epsilon from rates", _epsilon, 1e-9),
    Compared("ROUGE-L recall", lambda asked: _rouge(asked, "recall"), 1e-12),
    Compared("ROUGE-L F1", lambda asked: _rouge(asked, "f1"), 1e-12),
    Compared("exposure", _exposures, 1e-12),
    Compared("queries to extract", lambda asked: queries_needed(np.array(asked["suffix_log_p"])), 0.5),
    Compared("leak at k", _leaks, 1e-9, "of 20 samples, as a hypergeometric chance"),
)


def _add(result: Result, compared: Compared, package: str, answers: Mapping[str, Any], asked: Question) -> None:
    ours, theirs = (np.asarray(one, dtype=np.float64) for one in (compared.ours(asked), answers[compared.name]))
    _tell(result, compared.name, package, ours, theirs, compared.allowed, compared.note)


def _tell(result: Result, name: str, package: str, ours: Any, theirs: Any, allowed: float, note: str) -> None:
    assert ours.shape == theirs.shape, f"{package} answers {name} with {theirs.shape}, we with {ours.shape}"
    off = float(np.abs(ours - theirs).max())
    result.rows.append([name, package, str(ours.size), f"{off:.1e}", f"{allowed:.0e}", note])
    result.measurements.append({"question": name, "package": package, "figures": int(ours.size), "difference": off})
    result.targets.append(Target(f"{name}, {package}", off, allowed))


def _add_lira(result: Result, answers: Mapping[str, Any], asked: Question) -> None:
    """Our attack with a variance that is all pooled, given the spread that sacroml takes: the same chances.

    Ours widens by 1 + 1/K for the mean of K references; that is undone here. Ranks do not depend on either.
    """
    if "its spread" not in answers:
        return
    target, references = (np.array(asked["lira"][name]) for name in ("target", "references"))
    count = np.full(len(target), REFERENCES)
    pooled = answers["its spread"] ** 2 / (1 + 1 / REFERENCES)
    own = references.var(axis=1, ddof=1)
    chances, z = calibrated_scores(target, references.mean(axis=1), own, count, pooled, prior_weight=1e12)
    theirs = np.array(answers["likelihood ratio, offline"])
    name = "likelihood ratio, offline"
    _tell(result, name, "sacroml", chances, theirs, 1e-6, "one variance for all records")
    member = np.array(asked["lira"]["member"])
    auc = membership_auc(z[member == 1], z[member == 0], *(np.arange(300),) * 2).auc
    _tell(result, "its AUC", "sacroml", np.array(auc), np.array(answers["its AUC"]), 1e-8, "")
    shrunk = calibrated_scores(target, references.mean(axis=1), own, count, float(own.mean()))[1]
    ours = membership_auc(shrunk[member == 1], shrunk[member == 0], *(np.arange(300),) * 2).auc
    result.notes.append(f"offline likelihood ratio: AUC {auc:.4f} with one variance, {ours:.4f} with ours (shrunk)")
