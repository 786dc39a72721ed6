"""A policy that asks for qualifications: which rungs it leaves out, why, and what a covering document changes."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.catalogue.methods import find_method
from service.cli.main import main
from service.datasets.sources import dataset_digest
from service.errors import BadParameters
from service.verification.policy import Policy
from service.verification.qualification import (
    VALID,
    Figure,
    Qualification,
    SizeClass,
    judged,
    rules_digest,
)
from service.verification.schema import Check, Evaluation, ModelNumbers, Models, Records, SetNumbers, Use
from service.verification.verdict import decide, disagreements, judge
from tests.workers.qualification.shelves import TASK, data_of
from workers.modeling.code_version import code_version
from workers.modeling.recipe import recipe_digest
from workers.modeling.training_record import read_record
from workers.planning.costs import ExactOption
from workers.planning.ladder import Situation, plan_ladder
from workers.planning.parameters import full_params
from workers.planning.qualifying import unqualified, use_of, with_qualification

REQUIRED = Policy.model_validate({"verification": {"qualification": "required"}})
TODAY = datetime.now(UTC).date()
USE = Use(
    task="image-classification", recipe_digest="r" * 64, data_digest="d" * 64, holdout_digest="h" * 64,
    rules_digest=rules_digest(Policy().model_dump(mode="json")), companions=73, code_version="1",
    packages={"torch": "2"}, records=400, on=TODAY,
)  # fmt: skip
METHOD = "nabla_tau"


def document(use: Use, size: int = 100, **changes: Any) -> Qualification:
    bounds: dict[str, Any] = {"statistic": "", "ci": (0.49, 0.51), "ci95": (0.48, 0.52), "low": 0.4, "high": 0.6}
    figures = [Figure(name=name, **bounds) for name in ("auc", "tpr", "worst_decile", "utility")]
    values: dict[str, Any] = {
        "task": use.task, "method": METHOD, "params": full_params(find_method(METHOD), {}),
        "recipe_digest": use.recipe_digest, "data_digest": use.data_digest, "holdout_digest": use.holdout_digest,
        "model_digest": "", "records": 4000, "companions": use.companions, "code_version": use.code_version,
        "packages": use.packages, "policy_digest": "", "rules_digest": use.rules_digest,
        "issued": TODAY, "valid_until": TODAY + VALID, "seed": 0,
        "repetitions": 20, "classes": [SizeClass(size=size, runs=20, pooled=figures, designs={})],
    }  # fmt: skip
    return judged(Qualification.model_validate(values | changes))


def planned(policy: Policy, documents: Sequence[Qualification], **changes: Any) -> Any:
    facts: dict[str, Any] = {
        "task": USE.task, "forget_records": USE.records, "forget_subjects": 80, "data_records": 100_000,
        "has_held_out": True, "exact": [ExactOption("retrain", 1.0, "again")], "train_seconds": 10.0,
    }  # fmt: skip
    return plan_ladder(policy, Situation(**(facts | {"unqualified": unqualified(policy, documents, USE)} | changes)))


def test_without_a_qualification_only_exact_rungs_are_left_and_the_plan_says_why() -> None:
    made = planned(REQUIRED, [])
    assert [rung.method for rung in made.rungs] == ["retrain"]
    assert "no approximate method has one" in made.why
    assert set(made.alternatives) == {"nabla_tau", "negative_gradient_plus"}
    left = {one.method: one.why for one in made.estimates}
    assert left["nabla_tau"] == "left out: there is no qualification of it"
    assert planned(Policy(), []).rungs[0].method == "nabla_tau"
    with pytest.raises(BadParameters, match="no recipe to retrain by"):
        planned(REQUIRED, [], exact=[])


def test_a_covering_document_lets_its_method_in_and_no_other() -> None:
    made = planned(REQUIRED, [document(USE)])
    assert [rung.method for rung in made.rungs] == [METHOD, "retrain"]
    assert {one.method for one in made.estimates if one.why.startswith("left out")} == {"negative_gradient_plus"}
    named = REQUIRED.model_copy(update={"ladder": REQUIRED.ladder.model_copy(update={"methods": [METHOD]})})
    assert [rung.method for rung in planned(named, [document(USE)]).rungs] == [METHOD, "retrain"]
    assert [rung.method for rung in planned(named, []).rungs] == ["retrain"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data_digest": "e" * 64}, "other data"),
        ({"params": {}}, "other parameters"),
        ({"holdout_digest": None}, "another held-out set"),
        ({"packages": {"torch": "1"}}, "torch 1 (here 2)"),
        ({"issued": TODAY - VALID - timedelta(days=1), "valid_until": TODAY - timedelta(days=1)}, "was valid from"),
        ({"size": 10}, "no size was qualified that stands for 400 records"),
    ],
)
def test_wrong_data_other_parameters_and_expired_documents_cover_nothing(changes: dict[str, Any], why: str) -> None:
    assert why in unqualified(REQUIRED, [document(USE, **changes)], USE)[METHOD]


def evaluation(margin: float = 0.05) -> Evaluation:
    """A measured pass with companion canaries at a margin."""
    auc: dict[str, Any] = {"role": "gate", "statistic": "AUC", "estimate": 0.5, "alpha": 0.05, "ci": (0.47, 0.53)}
    auc |= {"ci95": (0.46, 0.54), "n": 400, "m": 900, "clusters": (80, 180)}
    checks = [
        Check(id="distinct", role="gate", statistic="", verdict="pass"),
        Check(id="sanity", role="gate", statistic="", estimate=1.0, verdict="pass"),
        Check(id="membership_auc", margin=0.05, **auc),
        Check(id="positive_control", margin=0.05, **(auc | {"ci95": (0.7, 0.8)})),
        Check(id="companion_canaries", margin=margin, **auc),
        Check(id="canary_control", margin=margin, **(auc | {"ci95": (0.7, 0.8)})),
    ]
    found = judge(checks, "measurement", Policy().verification)
    verdict, grade = decide(found, "measurement")
    model = ModelNumbers(forget=SetNumbers(loss=1.0), retain=SetNumbers(loss=1.0), held_out=None)
    return Evaluation(
        task=USE.task, records=Records(forget=400, retain=1, held_out=1, retain_scored=1),
        models=Models(original=model, candidate=model), checks=found, metrics={}, verdict=verdict, basis="measurement",
        grade=grade, policy_digest="",
    )  # fmt: skip


def test_an_evaluation_names_what_qualified_the_method_and_anyone_can_derive_its_grade() -> None:
    plain = evaluation()
    assert (plain.verdict, plain.grade, plain.qualification) == ("pass", "C", None)
    covering = document(USE)
    graded = with_qualification(plain, METHOD, {}, [covering], USE)
    assert (graded.verdict, graded.grade) == ("pass", "B")
    assert graded.qualification is not None
    assert (graded.qualification.digest, graded.qualification.size) == (covering.digest, 100)
    assert disagreements(Evaluation.model_validate(graded.as_json()), Policy().verification) == []
    stripped = graded.model_copy(update={"qualification": None})
    assert "the checks say pass grade C" in disagreements(stripped, Policy().verification)[0]
    assert with_qualification(evaluation(0.1), METHOD, {}, [covering], USE).grade == "C"
    assert with_qualification(plain, METHOD, {"passes": 2}, [covering], USE) == plain
    assert with_qualification(plain, "retrain", {}, [covering], USE) == plain


@pytest.mark.usefixtures("home")
def test_unlearn_auto_asks_for_the_document_it_is_given(
    shelf: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[ladder]\nmethods = ["nabla_tau"]\n[verification]\nqualification = "required"\n')
    record = read_record(shelf / "model")
    assert record is not None
    assert record.recipe is not None
    digests = record.data_digest, dataset_digest(shelf / "holdout.parquet")
    use = use_of("image-classification", record.recipe, digests, REQUIRED, 10)
    assert (use.recipe_digest, use.code_version) == (recipe_digest(record.recipe), code_version())
    covering = tmp_path / "q.json"
    covering.write_text(json.dumps(document(use, 10).as_json()))
    import pyarrow.parquet as pq

    ids = pq.read_table(shelf / "train.parquet")["record_id"].to_pylist()[:10]
    (tmp_path / "forget.txt").write_text("\n".join(ids) + "\n")
    words = ["unlearn", "--model", str(shelf / "model"), *TASK, *data_of(shelf), "--policy", str(policy), "--json"]
    words += ["--forget", str(tmp_path / "forget.txt"), "--method", "auto"]
    for number, (given, methods) in enumerate((([], ["retrain"]), (["--qualification", str(covering)], None))):
        assert main([*words, "--out", str(tmp_path / f"o{number}"), *given]) == 0
        rungs = [rung["method"] for rung in json.loads(capsys.readouterr().out)["plan"]["rungs"]]
        assert rungs == (methods or ["nabla_tau", "retrain"])
    # Without the option: from the home, where `lethe qualify` writes.
    (home / "qualifications").mkdir()
    covering.rename(home / "qualifications" / "q.json")
    assert main([*words, "--out", str(tmp_path / "o2")]) == 0
    assert len(json.loads(capsys.readouterr().out)["plan"]["rungs"]) == 2
    single = [*words[:-1], "retrain", "--out", str(tmp_path / "x"), "--qualification", str(home / "q.json")]
    assert main(single) == 2
    assert "only the ladder of --method auto asks for one" in capsys.readouterr().err
