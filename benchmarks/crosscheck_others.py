"""What independent implementations answer to the questions of `benchmarks.crosscheck`: a script for any interpreter.

Reads one JSON object from standard input and writes one to standard output: `answers` by name, `versions` by package,
and `missing`: why a package could not be imported. Needs NumPy; imports nothing of Lethe.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

Question = dict[str, Any]


def scipy_(asked: Question) -> dict[str, Any]:
    """AUC from U, its bootstrap error, exact bounds, false discovery control, quantiles; exposure from shares of the
    references that are no larger, extraction as geometric and hypergeometric chances."""
    stats = importlib.import_module("scipy.stats")
    members, others = np.array(asked["members"]), np.array(asked["others"])

    def auc(*sides: Any) -> float:
        return float(stats.mannwhitneyu(*sides).statistic) / (len(sides[0]) * len(sides[1]))

    again = stats.bootstrap(
        (members, others), auc, n_resamples=1000, method="percentile", vectorized=False, rng=np.random.default_rng(0)
    )
    references = asked["references"]
    below = [stats.percentileofscore(references, loss, kind="weak") / 100 for loss in asked["canaries"]]
    bounds = [stats.binomtest(*pair).proportion_ci(0.95, "exact") for pair in asked["proportions"]]
    return {
        "AUC": auc(members, others),
        "standard error of an AUC (bootstrap)": float(again.standard_error),
        "Clopper-Pearson": [[float(one.low), float(one.high)] for one in bounds],
        "Benjamini-Hochberg": stats.false_discovery_control(asked["p_values"]).tolist(),
        "quantiles of Student's t": [float(stats.t.ppf(*pair)) for pair in asked["quantiles"]],
        "exposure": [float(-np.log2(share + 1 / len(references))) for share in below],
        "queries to extract": stats.geom.ppf(0.5, np.exp(asked["suffix_log_p"])).tolist(),
        "leak at k": [[float(stats.hypergeom.sf(0, 20, found, k)) for found in asked["leaks"]] for k in asked["k"]],
    }


def sklearn_(asked: Question) -> dict[str, Any]:
    """AUC, and the true-positive rate at the largest false-positive rate that is allowed."""
    metrics = importlib.import_module("sklearn.metrics")
    labels = [1] * len(asked["members"]) + [0] * len(asked["others"])
    scores = [*asked["members"], *asked["others"]]
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    return {
        "AUC": float(metrics.roc_auc_score(labels, scores)),
        "TPR at 1 % FPR": float(true[false <= 0.01 + 1e-12].max()),
    }


def statsmodels_(asked: Question) -> dict[str, Any]:
    """Two one-sided tests, exact and score bounds, differences of shares, Holm and Benjamini-Hochberg."""
    proportion = importlib.import_module("statsmodels.stats.proportion")
    multiple = importlib.import_module("statsmodels.stats.multitest")
    weights = importlib.import_module("statsmodels.stats.weightstats")
    margin, pairs, p_values = asked["margin"], asked["pairs"], asked["p_values"]
    first, second = np.array(asked["paired"])
    return {
        "TOST, paired": float(weights.ttost_paired(first, second, -margin, margin)[0]),
        "Clopper-Pearson": [
            list(map(float, proportion.proportion_confint(*pair, 0.05, "beta"))) for pair in asked["proportions"]
        ],
        "Wilson": [
            list(map(float, proportion.proportion_confint(*pair, 0.05, "wilson"))) for pair in asked["proportions"]
        ],
        "Newcombe": [
            list(map(float, proportion.confint_proportions_2indep(*one, *other, method="newcomb")))
            for one, other in pairs
        ],
        "Holm": multiple.multipletests(p_values, method="holm")[1].tolist(),
        "Benjamini-Hochberg": multiple.multipletests(p_values, method="fdr_bh")[1].tolist(),
    }


def privacy_estimates_(asked: Question) -> dict[str, Any]:
    """Lower bounds on epsilon from counts of right and wrong answers (Clopper-Pearson)."""
    package = importlib.import_module("privacy_estimates")
    delta, alpha = asked["delta"], asked["alpha"]
    counts = [package.AttackResults(**count) for count in asked["counts"]]
    return {"epsilon from rates": [float(package.compute_eps_lo(one, delta, alpha, "beta")) for one in counts]}


def confidenceinterval_(asked: Question) -> dict[str, Any]:
    """The variance of an AUC by DeLong et al. (1988)."""
    package = importlib.import_module("confidenceinterval.delong")
    labels = np.array([1] * len(asked["members"]) + [0] * len(asked["others"]))
    auc, variance = package.delong_roc_variance(labels, np.array([*asked["members"], *asked["others"]]))
    return {"AUC": float(np.squeeze(auc)), "standard error of an AUC (DeLong)": float(np.sqrt(np.squeeze(variance)))}


def sacroml_(asked: Question) -> dict[str, Any]:
    """Its metrics of an attack, and its offline likelihood-ratio attack with one variance on the same references."""
    metrics = importlib.import_module("sacroml.metrics")
    labels = np.array([1] * len(asked["members"]) + [0] * len(asked["others"]))
    scores = np.array([*asked["members"], *asked["others"]])
    found = {
        "AUC": metrics.get_metrics(np.stack([-scores, scores], axis=1), labels)["AUC"],
        "null error of an AUC": float(metrics.auc_p_val(0.5, len(asked["members"]), len(asked["others"]))[1]),
        "TPR at 1 % FPR": float(metrics._tpr_at_fpr(labels, scores, 1.0)),
    }
    return found | _lira(asked, metrics)


def _lira(asked: Question, metrics: Any) -> dict[str, Any]:
    package = importlib.import_module("sacroml.attacks.likelihood_attack")
    target, references, member = (np.array(asked["lira"][name]) for name in ("target", "references", "member"))
    signals = {at: list(row) for at, row in enumerate(references)}
    nobody = {at: [0.0] for at in signals}
    with tempfile.TemporaryDirectory() as folder:
        attack = package.LIRAAttack(folder, False, fix_variance=True)
        # Two classes, the first of them right: its probability is what the logit of the attack undoes.
        right = 1 / (1 + np.exp(-target))
        scores, _ = attack._compute_scores(np.zeros(len(target), int), np.stack([right, 1 - right], 1), signals, nobody)
        spread = attack._get_global_std(signals)
    chance = np.array(scores)
    auc = metrics.get_metrics(np.stack([-chance[:, 1], chance[:, 1]], axis=1), member)["AUC"]
    return {"likelihood ratio, offline": chance[:, 1].tolist(), "its spread": float(spread), "its AUC": float(auc)}


def rouge_score_(asked: Question) -> dict[str, Any]:
    """Recall and F1 of the longest common subsequence, without stemming."""
    package = importlib.import_module("rouge_score.rouge_scorer")
    scorer = package.RougeScorer(["rougeL"], use_stemmer=False)
    found = [scorer.score(truth, said)["rougeL"] for said, truth in asked["texts"]]
    return {
        "ROUGE-L recall": [float(one.recall) for one in found],
        "ROUGE-L F1": [float(one.fmeasure) for one in found],
    }


ASKED: dict[str, Callable[[Question], dict[str, Any]]] = {
    "scipy": scipy_,
    "scikit-learn": sklearn_,
    "statsmodels": statsmodels_,
    "privacy-estimates": privacy_estimates_,
    "confidenceinterval": confidenceinterval_,
    "sacroml": sacroml_,
    "rouge-score": rouge_score_,
}


def main() -> None:
    """Answer what can be answered."""
    asked = json.load(sys.stdin)
    told: dict[str, dict[str, Any]] = {"answers": {}, "versions": {}, "missing": {}}
    for name, answer in ASKED.items():
        try:
            told["answers"][name] = answer(asked)
            told["versions"][name] = version(name)
        except ImportError as error:
            told["missing"][name] = f"{type(error).__name__}: {error}"
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
