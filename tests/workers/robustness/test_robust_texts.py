"""Robustness of language models whose tokenizers differ: compared per byte, over a retrain."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.verification.policy import Policy
from service.verification.schema import Evaluation
from tests.workers.factories import context, conversations, gpt2_recipe
from workers.modeling.train import Provenance, train_by_recipe
from workers.planning.evaluation import evaluate
from workers.planning.problems import open_line

HOLDOUT = "e2" * 32


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The original itself as its candidate, beside one retrain without 16 of 40 people."""
    folder = tmp_path_factory.mktemp("texts")
    recipe = gpt2_recipe(epochs=25, batch_size=16, learning_rate=5e-3, layers=1)
    data, held_out = conversations(40, 40)
    train_by_recipe(recipe, data, folder / "original", 0, context(), Provenance("d1" * 32, HOLDOUT))
    kept = data.subset(range(80, len(data)))
    provenance = replace(Provenance("d1" * 32, HOLDOUT), excluded=80)
    train_by_recipe(recipe, kept, folder / "retrained", 1, context(), provenance)
    original: Path = folder / "original"
    found, _ = evaluate(
        line=open_line(original, data.task, data, held_out, HOLDOUT), candidate_dir=original,
        retrained_dirs=[folder / "retrained"], forget_ids=data.ids[:80].tolist(), policy=Policy(), alpha=None,
        ignore_record=True, context=context(), robustness=True,
    )  # fmt: skip
    assert found.unit == "byte"
    return found


def test_eight_bits_show_what_full_precision_shows_of_texts(untouched: Evaluation) -> None:
    metrics = untouched.metrics
    for precision in ("bf16", "int8"):
        assert metrics[f"precision_{precision}"] == pytest.approx(metrics["membership_auc"], abs=0.01)
        (retrained,) = metrics[f"precision_{precision}_retrained"]
        assert metrics["membership_auc"] - retrained > 0.1
    assert metrics["precision_int4"] != metrics["membership_auc"]


def test_an_untouched_model_knows_more_than_a_retrain_before_and_after(untouched: Evaluation) -> None:
    metrics = untouched.metrics
    assert metrics["relearning_excess_by_step"][0] > 0.05
    relearned = untouched.check("relearning_excess")
    assert relearned is not None
    assert relearned.estimate == metrics["relearning_excess_do_nothing"]
    assert relearned.clusters == (8,)
    (retrained,) = metrics["relearning_score_retrained"]
    assert metrics["relearning_score"][0] > retrained[0]
    assert all(score < 0.0 for score in [*metrics["relearning_score"], *retrained])  # nats per byte, negated
