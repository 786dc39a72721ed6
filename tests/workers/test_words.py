"""Every check and every figure that an evaluation can hold has words for people, not its id alone."""

import numpy as np
import pyarrow as pa
import pytest

from service.catalogue.metrics import METRICS
from service.reports.names import metric_name, words_for
from service.reports.wording import words_of
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from tests.workers.synthetic import World
from tests.workers.test_text_checks import kinds, model
from workers.planning.assessment import Facts, assess
from workers.planning.generation_checks import _STATISTICS, UTILITY
from workers.planning.score_tables import OF_SUFFIXES


def asked(table: pa.Table, seed: int) -> pa.Table:
    """The table with figures of suffixes and numbers, as language models have them."""
    random = np.random.default_rng(seed)
    values = (
        random.normal(-9, 3, len(table)),
        random.random(len(table)),
        np.full(len(table), 9),
        random.random(len(table)),
        np.full(len(table), 1000),
    )
    for name, column in zip(OF_SUFFIXES, values, strict=True):
        table = table.append_column(name, pa.array(column))
    return table


def evaluations() -> list[Evaluation]:
    """One of a classifier and one of a language model, each beside ten retrained models."""
    again = {f"retrained_{at}": 0.0 for at in range(1, 11)}
    images = World(forget=60, retain=60, held_out=200).tables(original=1.5, candidate=0.1, **again)
    names = {"original": 3.0, "candidate": 0.0, **{f"retrained-{at}": 0.0 for at in (1, 2)}}
    texts = {
        name: asked(model(canaries / 3, at, canaries=canaries), at) for at, (name, canaries) in enumerate(names.items())
    }
    facts = Facts(canary_kinds=kinds())
    return [
        assess(images, "image-classification", Policy()),
        assess(texts, "causal-lm", Policy(), facts=facts),
    ]


@pytest.fixture(scope="module")
def told() -> list[Evaluation]:
    return evaluations()


def test_every_check_has_a_name(told: list[Evaluation]) -> None:
    ids = {check.id for found in told for check in found.checks} | set(_STATISTICS)
    assert {"extraction", "value_exposure", "canary_rank_one", "churn", "zlib_auc", "verbmem"} <= ids
    assert {name for name in ids if words_of(name) is None} == set()


def test_every_figure_has_words(told: list[Evaluation]) -> None:
    names = {name for found in told for name in found.metrics} | {
        UTILITY,
        "relearning_excess_by_step",
        "relearning_steps",
    }
    assert {"klom_gaussian_do_nothing_p95", "extraction_windows", "tow_mia_retrain_to_retrain"} <= names
    assert {
        name for name in names if words_for(name.removesuffix("_do_nothing").removesuffix("_retrained")) is None
    } == set()


def test_words_are_made_of_a_figure_and_its_endings() -> None:
    assert metric_name("klom_do_nothing_p95").endswith("histograms, old version, 95 % quantile")
    assert metric_name("churn_newly_wrong_held_out") == "Newly wrong, on held-out records"
    assert metric_name("something_new") == "something new"
    assert words_for("something_p95") is None


def test_what_the_catalogue_calls_a_gate_of_texts_is_measured(told: list[Evaluation]) -> None:
    ids = {check.id for check in told[1].checks}
    assert {spec.name for spec in METRICS if spec.role == "gate"} - {"provenance"} <= ids
