"""`lethe train` and `lethe unlearn` as typed: exit codes, JSON alone on standard output, one-line errors."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.cli.main import main
from tests.e2e.world import RECIPE, write_digits

TASK = ["--task", "image-classification"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, held-out data, a recipe, ids and a trained model."""
    folder = tmp_path_factory.mktemp("shelf")
    write_digits(folder, people=120, rows=10)
    ids = pq.read_table(folder / "train.parquet")["record_id"].to_pylist()
    (folder / "forget.txt").write_text("\n".join(ids[:120]) + "\n")
    (folder / "one.txt").write_text(ids[0] + "\n")
    (folder / "all.txt").write_text("\n".join(ids) + "\n")
    (folder / "unknown.txt").write_text("nobody\n")
    (folder / "empty.txt").write_text("\n")
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 6"))
    assert train(folder, "model") == 0
    return folder


def train(folder: Path, out: str, *more: str, recipe: str = "recipe.toml") -> int:
    data = ["--data", str(folder / "train.parquet"), "--holdout", str(folder / "holdout.parquet")]
    return main(["train", "--recipe", str(folder / recipe), *data, "--out", str(folder / out), *more])


def unlearn(folder: Path, out: str, *more: str, forget: str = "forget.txt", method: str = "nabla_tau") -> int:
    data = ["--data", str(folder / "train.parquet"), "--holdout", str(folder / "holdout.parquet")]
    words = ["unlearn", "--model", str(folder / "model"), *TASK, *data, "--forget", str(folder / forget)]
    return main([*words, "--method", method, "--out", str(folder / out), *more])


def test_train_prints_json_alone_and_repeats_itself(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(shelf, "again", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 1200
    assert told["out"] == str(shelf / "again")
    weights = [(shelf / name / "model.safetensors").read_bytes() for name in ("model", "again")]
    assert weights[0] == weights[1]


def test_train_refuses_in_one_line(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf / "bad.toml").write_text(RECIPE.replace("epochs", "epoch"))
    assert train(shelf, "bad", recipe="bad.toml") == 2
    assert train(shelf, "model") == 2
    assert train(shelf, "bad", "--columns", "label=nothing") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert "unknown key training.epoch" in lines[0]
    assert "exists already" in lines[1]
    assert "nothing" in lines[2]
    assert not (shelf / "bad").exists()


def test_unlearn_takes_the_recipe_from_the_model_and_prints_the_contract_s_object(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unlearn(shelf, "retrained", "--json", method="retrain") == 0
    told = json.loads(capsys.readouterr().out)
    keys = {"schema", "method", "params", "seconds", "peak_memory_bytes", "forward_passes", "backward_passes"}
    assert keys | {"records", "out", "digest"} <= set(told)
    assert (told["method"], told["records"]) == ("retrain", 120)
    assert unlearn(shelf, "nabla", "--json", "--params", '{"passes": 2}', "--seed", "3") == 0
    assert json.loads(capsys.readouterr().out)["params"]["passes"] == 2


@pytest.mark.parametrize(
    ("forget", "method", "more", "told"),
    [
        ("unknown.txt", "nabla_tau", [], "not in the data"),
        ("empty.txt", "nabla_tau", [], "names no record"),
        ("all.txt", "nabla_tau", [], "whole data set"),
        ("none.txt", "nabla_tau", [], "none.txt"),
        ("one.txt", "magic", [], "magic"),
        ("one.txt", "nabla_tau", ["--params", "[1]"], "JSON object"),
        ("one.txt", "nabla_tau", ["--params", '{"speed": 1}'], "speed"),
        ("one.txt", "nabla_tau", ["--device", "tpu"], "tpu"),
    ],
)
def test_unlearn_refuses_in_one_line(
    shelf: Path, capsys: pytest.CaptureFixture[str], forget: str, method: str, more: list[str], told: str
) -> None:
    assert unlearn(shelf, "refused", *more, forget=forget, method=method) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert told in captured.err
    assert not (shelf / "refused").exists()


def test_auto_sends_one_person_straight_to_the_exact_method(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unlearn(shelf, "auto", "--json", forget="one.txt", method="auto") == 0
    told = json.loads(capsys.readouterr().out)
    assert [attempt["method"] for attempt in told["attempts"]] == ["retrain"]
    assert told["attempts"][0]["verdict"] == "pass"
    assert told["out"] == str(shelf / "auto")
    assert (shelf / "auto" / "training_record.json").is_file()
    assert not list(shelf.glob("auto.attempt*"))


def test_auto_climbs_until_something_passes(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unlearn(shelf, "climbed", "--json", method="auto") == 0
    told = json.loads(capsys.readouterr().out)
    verdicts = [attempt["verdict"] for attempt in told["attempts"]]
    assert told["attempts"][0]["method"] == "nabla_tau"
    assert verdicts[-1] == "pass"
    assert "pass" not in verdicts[:-1]
