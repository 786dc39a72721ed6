"""The literature's metrics on score tables: beside doing nothing and retrains, null where more models are needed."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.verification.schema import Check
from tests.workers.synthetic import World, language_table, replace_column
from workers.planning.comparisons import Line, metric_checks, retrain_metrics
from workers.planning.score_tables import CANDIDATE, ORIGINAL, RETRAINED, read_tables


def line(tables: dict[str, pa.Table], task: str = "image-classification") -> Line:
    models = read_tables(tables, task, per_byte=False)
    retrained = [model for name, model in models.items() if name.startswith(RETRAINED)]
    return Line(models[ORIGINAL], models[CANDIDATE], retrained)


def tables(retrained: int, candidate: float = 0.0, **options: Any) -> dict[str, pa.Table]:
    again = {f"{RETRAINED}{number}": 0.0 for number in range(1, retrained + 1)}
    return World(**options).tables(original=2.0, candidate=candidate, **again)


def metrics(found: dict[str, pa.Table]) -> dict[str, Any]:
    return retrain_metrics(line(found), seed=0)


@pytest.mark.parametrize("retrained", [8, 12])
def test_the_score_of_a_clean_candidate_is_near_one_and_of_doing_nothing_near_none(retrained: int) -> None:
    found = metrics(tables(retrained, forget=300))
    assert found["unlearning_score"] == pytest.approx(1, abs=0.12)
    assert found["unlearning_score_retrain_to_retrain"] == pytest.approx(1, abs=0.01)
    assert found["unlearning_score_null"] == pytest.approx((retrained - 2) / retrained)
    assert found["unlearning_score_do_nothing"] < 0.2
    assert metrics(tables(retrained, candidate=2.0, forget=300))["unlearning_score"] < 0.2


def test_a_candidate_that_is_often_wrong_pays_for_it() -> None:
    with_loss = tables(8, forget=300)
    wrong = np.asarray(with_loss[CANDIDATE]["correct"].to_pylist())
    wrong[300:] &= np.arange(len(wrong) - 300) % 2 == 0
    with_loss[CANDIDATE] = replace_column(with_loss[CANDIDATE], "correct", wrong.tolist())
    ratio = metrics(with_loss)["unlearning_score"] / metrics(tables(8, forget=300))["unlearning_score"]
    assert ratio == pytest.approx(0.25, abs=0.02)  # half as often right on retained and on held-out records


def test_the_histogram_takes_fifty_retrained_models() -> None:
    found = metrics(tables(50))
    floor = found["klom_retrain_to_retrain"]
    assert found["klom"] == pytest.approx(floor, rel=0.15)
    assert found["klom_do_nothing"] > 2 * floor
    assert found["klom_do_nothing_p95"] >= found["klom_do_nothing"]
    assert metrics(tables(50, candidate=2.0))["klom"] > 2 * floor
    assert metrics(tables(49))["klom"] is None


def test_too_few_retrained_models_leave_nulls_and_none_leave_nothing() -> None:
    found = metrics(tables(7))
    assert [name for name in found if name.startswith("unlearning_score")] == [
        "unlearning_score", "unlearning_score_do_nothing", "unlearning_score_retrain_to_retrain",
        "unlearning_score_null",
    ]  # fmt: skip
    assert all(value is None for name, value in found.items() if name.startswith("unlearning_score"))
    assert found["klom_gaussian"] is not None
    without_held_out = metrics(tables(9, held_out=0))
    assert without_held_out["unlearning_score"] is None
    assert metrics(tables(0)) == {}


def labelled(found: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: table.append_column("label", pa.array(np.arange(len(table)) % 4)) for name, table in found.items()}


def churned(found: dict[str, pa.Table]) -> tuple[Check | None, dict[str, Any]]:
    checks, values = metric_checks(line(found))
    return next((check for check in checks if check.id == "churn"), None), values


def test_churn_stands_beside_doing_nothing_and_a_retrain() -> None:
    found = labelled(tables(2))
    right = np.asarray(found[ORIGINAL]["correct"].to_pylist())
    changed = right.copy()
    retained = np.asarray([part == "retain" for part in found[ORIGINAL]["set"].to_pylist()])
    struck = retained & (np.arange(len(right)) % 4 == 1)
    changed[struck] = ~changed[struck]
    found[CANDIDATE] = replace_column(found[CANDIDATE], "correct", changed.tolist())
    check, values = churned(found)
    newly_wrong = float(np.mean(right[retained & struck])) / 4
    assert check is not None
    assert check.role == "diagnostic"
    assert check.estimate == values["churn_newly_wrong"] == pytest.approx(newly_wrong)
    assert check.ci95 is not None
    assert check.ci95[0] < newly_wrong < check.ci95[1]
    assert values["churn_newly_right"] == pytest.approx(0.25 - newly_wrong)
    assert values["churn_worst_class"] == pytest.approx(4 * newly_wrong)
    assert values["churn_newly_wrong_do_nothing"] == values["churn_newly_wrong_held_out"] == 0
    assert len(values["churn_newly_wrong_retrained"]) == 2
    assert 0 < max(values["churn_newly_wrong_held_out_retrained"]) < 0.1


def test_churn_needs_neither_labels_nor_held_out_records() -> None:
    check, values = churned(tables(0, held_out=0))
    assert check is not None
    assert values["churn_worst_class"] is None
    assert "churn_newly_wrong_held_out" not in values


def test_texts_have_no_churn() -> None:
    random = np.random.default_rng(0)
    parts = [language_table(part, random.gamma(4, 0.5, 40), np.arange(40)) for part in ("forget", "retain")]
    both = {name: pa.concat_tables(parts) for name in (ORIGINAL, CANDIDATE)}
    checks, values = metric_checks(line(both, "causal-lm"))
    assert "churn" not in {check.id for check in checks}
    assert not any(name.startswith("churn") for name in values)
