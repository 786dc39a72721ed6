"""`lethe references` as typed: a pool, a second run that goes on, an estimate, and errors of one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.catalogue.lineage import LINEAGE
from service.cli.main import main
from tests.e2e.world import write_digits
from workers.lineage.reserve import read_reserve
from workers.modeling.training_record import read_exposures
from workers.references.layout import read_split
from workers.references.pool import open_pool

TASK = ["--task", "image-classification"]
RECIPE = """
[model]
task = "image-classification"
[model.config]
model_type = "resnet"
num_channels = 1
embedding_size = 8
hidden_sizes = [8, 16]
depths = [1, 1]
layer_type = "basic"
[training]
epochs = 4
batch_size = 64
seed = 5
[lineage]
checkpoints = "off"
canaries = "off"
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    write_digits(folder, people=20, rows=10)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "cheap.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 1"))
    data = ["--data", str(folder / "train.parquet"), "--holdout", str(folder / "holdout.parquet")]
    assert main(["train", "--recipe", str(folder / "recipe.toml"), *data, "--out", str(folder / "model")]) == 0
    return folder


def references(folder: Path, *more: str, model: str = "model", holdout: bool = True) -> int:
    words = ["references", "--model", str(folder / model), *TASK, "--data", str(folder / "train.parquet")]
    words += ["--holdout", str(folder / "holdout.parquet")] if holdout else []
    return main([*words, *more])


def cheap(folder: Path, out: str, *more: str, **options: Any) -> int:
    words = ["--recipe", str(folder / "cheap.toml"), "--out", str(folder / out), "--count", "8"]
    return references(folder, *words, *more, **options)


def test_it_builds_goes_on_and_repeats_itself(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cheap(shelf, "pool", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["count"], told["seed"], told["strategy"]) == (8, 5, "halves")
    assert told["references"] == {"method": 0, "gate": 8}
    assert told["out_references_per_record"] == {"method": 0, "gate": 4}
    assert told["records"] == 200
    pool = open_pool(shelf / "pool", "image-classification", told["data_digest"])
    assert pool.facts.recipe.training.epochs == 1
    kept = (shelf / "pool" / "member-000" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(shelf / "pool" / "member-005")
    assert cheap(shelf, "pool") == 0
    assert "8 references (8 for the gate), 200 records" in capsys.readouterr().out
    assert (shelf / "pool" / "member-000" / "model.safetensors").stat().st_mtime_ns == kept
    assert open_pool(shelf / "pool").facts.tables == pool.facts.tables


def test_reserved_people_and_no_held_out_set(shelf: Path) -> None:
    assert cheap(shelf, "some", "--strategy", "reserved_split", "--reserved", "0.5", holdout=False) == 0
    pool = open_pool(shelf / "some")
    assert pool.facts.split.held_out == 0
    assert pool.facts.strategy == "reserved_split"
    assert 100 <= pool.facts.split.trainable < 120


def test_without_a_held_out_set_the_reserve_of_the_training_is_one(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path, people=60, rows=5)
    data, recipe = ["--data", str(tmp_path / "train.parquet")], ["--recipe", str(tmp_path / "recipe.toml")]
    (tmp_path / "recipe.toml").write_text(RECIPE + "reserve = 0.3\n")
    assert main(["train", *recipe, *data, "--out", str(tmp_path / "model")]) == 0
    (tmp_path / "cheap.toml").write_text((shelf / "cheap.toml").read_text())
    assert cheap(tmp_path, "pool", holdout=False) == 0
    planned = read_split(tmp_path / "pool")
    reserve = read_reserve(tmp_path / "model" / LINEAGE)
    assert set(planned.held_out.tolist()) == reserve
    assert not set(planned.train.tolist()) & reserve
    assert len(planned.train) + len(reserve) == 300
    seen = sorted(planned.train.tolist())
    (tmp_path / "forget.txt").write_text("\n".join(seen[:40]))
    retrain = ["--forget", str(tmp_path / "forget.txt"), "--method", "retrain", "--out", str(tmp_path / "out")]
    assert main(["unlearn", "--model", str(tmp_path / "model"), *TASK, *data, *retrain]) == 0
    capsys.readouterr()
    words = ["evaluate", "--original", str(tmp_path / "model"), "--candidate", str(tmp_path / "out"), *TASK, *data]
    pool = ["--references", str(tmp_path / "pool"), "--json"]
    assert main([*words, "--forget", str(tmp_path / "forget.txt"), *pool]) == 0
    told = json.loads(capsys.readouterr().out)
    found = next(check for check in told["checks"] if check["id"] == "reference_auc")
    assert (found["references"], found["n"]) == (4, 40)
    assert found["estimate"] is not None
    assert told["traces"]["held_out"] == "reserve"


def test_people_whom_the_model_has_forgotten_are_not_brought_back(shelf: Path, tmp_path: Path) -> None:
    ids = pq.read_table(shelf / "train.parquet")["record_id"].to_pylist()
    (tmp_path / "forget.txt").write_text("\n".join(ids[:20]))
    files = ["--data", str(shelf / "train.parquet"), "--forget", str(tmp_path / "forget.txt")]
    words = ["unlearn", "--model", str(shelf / "model"), *TASK, *files, "--method", "retrain"]
    assert main([*words, "--out", str(shelf / "without")]) == 0
    assert cheap(shelf, "fewer", model="without") == 0
    assert not set(ids[:20]) & set(read_split(shelf / "fewer").train.tolist())
    assert len(read_split(shelf / "fewer").train) == 180
    for number in range(8):
        seen = read_exposures(shelf / "fewer" / f"member-{number:03d}")["record_id"].to_pylist()
        assert not set(ids[:20]) & set(seen)


def test_an_estimate_trains_nothing_and_says_which_is_better(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert references(shelf, "--estimate", "--count", "16", "--jobs", "22", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["prepare"], told["affected"], told["better"]) == (8.0, 8.0, "retraining")
    assert told["horizon"]["jobs"] == 22
    cheaper = ["--recipe", str(shelf / "cheap.toml"), "--strategy", "reserved_split", "--reserved", "0.5"]
    assert references(shelf, "--estimate", "--count", "16", "--jobs", "22", *cheaper) == 0
    assert "16 references cost 1.0 retrains to prepare" in capsys.readouterr().out
    assert references(shelf, "--estimate", "--count", "16", "--recipe-cost", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["prepare"] == pytest.approx(24)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "new", "--count", "6"], "6 references make no pool"),
        (["--out", "new", "--count", "17"], "take 18"),
        (["--out", "new", "--strategy", "folds"], "--strategy 'folds' is unknown"),
        (["--out", "new", "--strategy", "reserved_split", "--reserved", "1"], "must lie between 0 and 1"),
        ([], "--out is missing"),
        (["--estimate", "--jobs", "-1"], "makes no sense"),
        (["--out", "new", "--seed", "-1"], "seed"),
    ],
)
def test_it_refuses_in_one_line(shelf: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    given = [str(shelf / word) if word == "new" else word for word in words]
    assert references(shelf, *given) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (shelf / "new").exists()


def test_a_model_trained_elsewhere_needs_a_recipe(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(shelf / "model", shelf / "foreign")
    (shelf / "foreign" / "training_record.json").unlink()
    assert references(shelf, "--out", str(shelf / "new"), model="foreign") == 2
    assert "--recipe" in capsys.readouterr().err
    assert cheap(shelf, "elsewhere", model="foreign") == 0
    assert len(read_split(shelf / "elsewhere").train) == 200
    assert np.isin(read_split(shelf / "elsewhere").split.out, (0, 1)).all()
