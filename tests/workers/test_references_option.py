"""`--references` as typed, with pools of real models: what it adds to an evaluation, who may use it, what it is not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from service.catalogue import methods
from service.catalogue.specs import MethodSpec
from service.cli.main import main
from service.errors import BadParameters
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.verdict import disagreements
from tests.e2e.world import RECIPE, write_digits
from tests.workers import factories
from workers.modeling.fresh import Provenance
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.train import train_by_recipe
from workers.planning.calibrated import open_references, tokenizer_of
from workers.planning.evaluation import evaluate
from workers.planning.problems import open_line
from workers.references.members import Materials
from workers.references.pool import build_pool, open_pool
from workers.references.tables import load_side

TASK = ["--task", "image-classification"]
DATA, HOLDOUT = "d1" * 32, "e2" * 32


def data_of(shelf: Path) -> list[str]:
    return ["--data", str(shelf / "train.parquet"), "--holdout", str(shelf / "holdout.parquet")]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a model that has memorised it, a retrain, a pool of eight for the gate and one of sixteen for both."""
    folder = tmp_path_factory.mktemp("shelf")
    write_digits(folder, people=60, rows=5, noise=0.3)
    ids = pq.read_table(folder / "train.parquet")["record_id"].to_pylist()
    (folder / "forget.txt").write_text("\n".join(ids[:100]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE.replace("batch_size = 64", "batch_size = 16"))
    (folder / "quick.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 4"))
    recipe = ["--recipe", str(folder / "recipe.toml")]
    assert main(["train", *recipe, *data_of(folder), "--out", str(folder / "original")]) == 0
    retrain = ["--forget", str(folder / "forget.txt"), "--method", "retrain", "--out", str(folder / "retrained")]
    assert main(["unlearn", "--model", str(folder / "original"), *TASK, *data_of(folder), *retrain]) == 0
    quick = ["--recipe", str(folder / "quick.toml"), "--model", str(folder / "original")]
    for name, count in (("gate", "8"), ("both", "16")):
        pool = ["--count", count, "--out", str(folder / name)]
        assert main(["references", *TASK, *data_of(folder), *quick, *pool]) == 0
    return folder


def run(shelf: Path, *more: str, data: list[str] | None = None, candidate: str = "retrained") -> int:
    words = ["evaluate", *TASK, "--forget", str(shelf / "forget.txt"), "--original", str(shelf / "original")]
    return main([*words, "--candidate", str(shelf / candidate), *(data or data_of(shelf)), *more])


def unlearn(shelf: Path, out: Path, *more: str) -> int:
    words = ["unlearn", "--model", str(shelf / "original"), *TASK, *data_of(shelf), "--out", str(out)]
    return main([*words, "--forget", str(shelf / "forget.txt"), *more])


def check_of(told: dict[str, Any], name: str) -> dict[str, Any]:
    return dict(next(check for check in told["checks"] if check["id"] == name))


def test_the_calibrated_attack_is_added_and_tells_the_original_from_a_retrain(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retrained = ["--retrained", str(shelf / "retrained"), "--ignore-record", "--json"]
    plain = run(shelf, *retrained)
    without = json.loads(capsys.readouterr().out)
    assert run(shelf, *retrained, "--references", str(shelf / "gate")) == plain
    told = json.loads(capsys.readouterr().out)
    found, control = check_of(told, "reference_auc"), check_of(told, "reference_control")
    assert (found["role"], control["role"]) == ("gate", "diagnostic")
    assert check_of(told, "membership_auc")["role"] == "diagnostic"
    assert found["references"] == 4
    assert found["n"] == 100
    assert found["cluster"] == "subject"
    assert found["clusters"][0] == 20
    assert found["ci"][0] < found["estimate"] < found["ci"][1]
    assert found["ci95"][0] < 0.5 < found["ci95"][1]
    assert found["p_value"] > 0.05
    assert control["estimate"] > 0.7
    assert control["p_value"] < 0.001
    metrics = told["metrics"]
    assert metrics["reference_auc"] == found["estimate"] == metrics["reference_auc_retrained"][0]
    assert metrics["reference_auc_do_nothing"] == control["estimate"]
    assert disagreements(Evaluation.model_validate(told), Policy().verification) == []
    missing = check_of(without, "reference_auc")
    assert (missing["role"], missing["verdict"], missing["reason"]) == ("diagnostic", "info", "not run: no references")
    assert "reference_auc" not in without["metrics"]
    assert (told["verdict"], told["grade"]) == (without["verdict"], without["grade"])


def test_a_leak_of_an_exact_candidate_holds_it_for_a_person(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that lies: the original's weights under a retrain's record, one bit apart."""
    from safetensors.torch import load_file, save_file

    from workers.modeling.training_record import read_record, weights_digest, write_record

    forged = Path(shutil.copytree(shelf / "retrained", tmp_path / "forged"))
    weights = load_file(shelf / "original" / "model.safetensors")
    name = min(weights)
    weights[name].view(-1)[0] *= 1 + 1e-3
    save_file(weights, forged / "model.safetensors", metadata={"format": "pt"})
    record = read_record(forged)
    assert record is not None
    write_record(forged, record.model_copy(update={"weights_digest": weights_digest([forged / "model.safetensors"])}))
    assert run(shelf, "--references", str(shelf / "both"), "--json", candidate=str(forged)) == 3
    told = json.loads(capsys.readouterr().out)
    found = check_of(told, "reference_auc")
    assert (told["basis"], told["verdict"], told["grade"]) == ("procedure", "inconclusive", None)
    assert (found["role"], found["verdict"], found["references"]) == ("diagnostic", "fail", 4)
    assert "a person should look before this is published" in found["reason"]


def test_pools_of_other_things_are_refused_in_one_line(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pq.read_table(shelf / "train.parquet")
    pq.write_table(table.slice(0, 250), tmp_path / "other.parquet")
    other = ["--data", str(tmp_path / "other.parquet"), "--holdout", str(shelf / "holdout.parquet")]
    pq.write_table(pq.read_table(shelf / "holdout.parquet").slice(0, 90), tmp_path / "held.parquet")
    held = ["--data", str(shelf / "train.parquet"), "--holdout", str(tmp_path / "held.parquet")]
    damaged = Path(shutil.copytree(shelf / "gate", tmp_path / "damaged"))
    (damaged / "gate.arrow").write_bytes(b"nothing")
    begun = Path(shutil.copytree(shelf / "gate", tmp_path / "begun"))
    facts = json.loads((begun / "pool.json").read_text())
    (begun / "pool.json").write_text(json.dumps(facts | {"members": [], "tables": {}}))
    for pool, data, why in (
        (tmp_path, None, "no reference pool"),
        (shelf / "gate", other, "a reference pool of other data"),
        (shelf / "gate", held, "of another held-out set"),
        (damaged, None, "not the file that was written"),
        (begun, None, "not all references are trained"),
    ):
        assert run(shelf, "--references", str(pool), data=data) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert why in captured.err
        assert captured.err.count("\n") == 1


def test_the_ladder_is_judged_with_the_pool_and_a_single_method_has_no_use_for_it(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.toml").write_text('[ladder]\nmethods = ["retrain"]\n')
    auto = ["--method", "auto", "--policy", str(tmp_path / "policy.toml"), "--json"]
    for name in ("gate", "both"):
        assert unlearn(shelf, tmp_path / name, *auto, "--references", str(shelf / name)) == 0
        told = json.loads(capsys.readouterr().out)
        found = check_of(told["attempts"][0]["evaluation"], "reference_auc")
        assert found["references"] == 4
        assert found["estimate"] == pytest.approx(0.5, abs=0.15)
    assert unlearn(shelf, tmp_path / "x", "--method", "retrain", "--references", str(shelf / "both")) == 2
    assert "--references: retrain uses no reference pool; leave it out" in capsys.readouterr().err
    assert unlearn(shelf, tmp_path / "x", *auto, "--references", str(tmp_path)) == 2
    assert not (tmp_path / "x").exists()


class NoParams(BaseModel):
    """Takes none."""


SEEN: list[Any] = []


def copying(problem: Problem, params: NoParams, context: Context, out_dir: Path) -> Outcome:
    """A method that looks at the references of the forgotten records and leaves the model as it is."""
    del params, context
    assert problem.references is not None
    rows = problem.references.rows("train", problem.forget.ids)
    SEEN.append(problem.references.column("out_mean")[rows])
    for path in problem.base_dir.glob("*.*"):
        if path.is_file() and "training_record" not in path.name:
            shutil.copy(path, out_dir)
    return Outcome(0, 0, 0, [], exact=False)


@pytest.fixture
def needing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue with a method that needs references."""
    spec = MethodSpec(
        name="copying", target=f"{__name__}:copying", params=NoParams, kind="approximate",
        tasks=("image-classification",), needs=("references",), summary="", guarantee="", source="",
    )  # fmt: skip
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, spec))
    SEEN.clear()


@pytest.mark.usefixtures("needing")
def test_a_method_that_needs_references_gets_the_side_that_does_not_judge_it(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unlearn(shelf, tmp_path / "out", "--method", "copying", "--references", str(shelf / "both")) == 0
    pool = open_pool(shelf / "both")
    ids = (shelf / "forget.txt").read_text().split()
    sides = {side: load_side(pool, side) for side in ("method", "gate")}  # type: ignore[arg-type]
    own, gate = (sides[side].column("out_mean")[sides[side].rows("train", ids)] for side in ("method", "gate"))  # type: ignore[arg-type]
    assert SEEN[0].tolist() == own.tolist() != gate.tolist()
    capsys.readouterr()
    for options, why in (
        (["--references", str(shelf / "gate")], "8 references have no method side; it takes 16"),
        ([], "copying needs reference models"),
    ):
        assert unlearn(shelf, tmp_path / "x", "--method", "copying", *options) == 2
        assert why in capsys.readouterr().err
    assert len(SEEN) == 1


def test_a_pool_of_texts_has_the_tokenizer_of_the_served_model_and_a_retrain_another(tmp_path: Path) -> None:
    data, held_out = factories.conversations(24, 30)
    recipe = factories.gpt2_recipe(epochs=30, batch_size=16, learning_rate=5e-3)
    known = Provenance(DATA, HOLDOUT)
    train_by_recipe(recipe, data, tmp_path / "original", 0, factories.context(), known)
    forget = [str(name) for name in data.ids[:40]]
    train_by_recipe(
        recipe, data.subset(range(40, 120)), tmp_path / "retrained", 1, factories.context(), replace(known, excluded=40)
    )
    quick = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 4})})
    materials = Materials(tmp_path / "original", data, held_out, quick, DATA, HOLDOUT, {})
    build_pool(tmp_path / "pool", materials, factories.context(3), 8)
    references = open_references(tmp_path / "pool", "causal-lm", DATA, HOLDOUT)
    assert references.tokenizer == tokenizer_of(tmp_path / "original") != tokenizer_of(tmp_path / "retrained")
    line = open_line(tmp_path / "original", "causal-lm", data, held_out, HOLDOUT)
    found = {}
    for name in ("original", "retrained"):
        found[name], _ = evaluate(
            line=line, candidate_dir=tmp_path / name, retrained_dirs=[], forget_ids=forget, policy=Policy(), alpha=None,
            ignore_record=True, context=factories.context(), references=references,
        )  # fmt: skip
    assert (found["original"].unit, found["retrained"].unit) == ("token", "byte")
    leak, clean = (found[name].metrics["reference_auc"] for name in ("original", "retrained"))
    assert leak > 0.75
    assert clean < 0.65
    assert found["retrained"].metrics["reference_auc_do_nothing"] > 0.75
    with pytest.raises(BadParameters, match="another task"):
        open_references(tmp_path / "pool", "text-classification", DATA, HOLDOUT)
