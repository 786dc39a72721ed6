"""`lethe evaluate` as a user types it: exit codes, JSON on standard output, one line for everything else."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from service.cli.main import main
from tests.e2e.world import RECIPE, write_digits
from workers.cli.evaluate import repeat


def test_retrained_takes_several_values_in_both_forms() -> None:
    spread = ["--retrained", "a", "--retrained", "b", "--json"]
    assert repeat(["--retrained", "a", "b", "--json"]) == spread
    assert repeat(spread) == spread
    assert repeat(["--data", "x", "--retrained", "a", "--seed", "3"]) == [
        "--data",
        "x",
        "--retrained",
        "a",
        "--seed",
        "3",
    ]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has on disk: data, held-out data, two trained models, ids, a recipe."""
    folder = tmp_path_factory.mktemp("shelf")
    write_digits(folder, people=200, rows=5)
    ids = pq.read_table(folder / "train.parquet")["record_id"].to_pylist()
    (folder / "forget.txt").write_text("\n".join(ids[:60]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 6"))
    data = ["--data", str(folder / "train.parquet"), "--holdout", str(folder / "holdout.parquet")]
    recipe = ["--recipe", str(folder / "recipe.toml")]
    assert main(["train", *recipe, *data, "--out", str(folder / "original")]) == 0
    forget = ["--forget", str(folder / "forget.txt"), "--method", "retrain", "--out", str(folder / "retrained")]
    task = ["--task", "image-classification"]
    assert main(["unlearn", "--model", str(folder / "original"), *task, *data, *forget]) == 0
    return folder


def run(shelf: Path, *more: str, candidate: str = "retrained", forget: str = "forget.txt") -> int:
    words = ["evaluate", "--task", "image-classification", "--forget", str(shelf / forget)]
    for option, name in (("--original", "original"), ("--candidate", candidate), ("--data", "train.parquet")):
        words += [option, str(shelf / name)]
    return main([*words, "--holdout", str(shelf / "holdout.parquet"), *more])


def test_the_command_tells_by_exit_code_and_json(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shelf, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "lethe/evaluation/2"
    assert (told["verdict"], told["grade"], told["basis"]) == ("pass", "A", "procedure")
    retrained = str(shelf / "retrained")
    assert run(shelf, "--ignore-record", "--retrained", retrained, retrained, "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["basis"], told["grade"], len(told["models"]["retrained"])) == ("measurement", None, 2)
    assert run(shelf, "--serve-precision", "int8", "--json") == 0
    assert json.loads(capsys.readouterr().out)["serve_precision"] == "int8"
    assert run(shelf, candidate="original") == 1
    printed = capsys.readouterr().out
    assert "membership_auc" in printed
    assert "fail, by measurement: distinct" in printed


def test_what_cannot_be_evaluated_exits_with_four(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken", "nan"):
        shutil.copytree(shelf / "retrained", tmp_path / name)
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not safetensors")
    weights = tmp_path / "nan" / "model.safetensors"
    save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)
    (tmp_path / "empty.txt").write_text("\n")
    assert run(shelf, candidate=str(tmp_path / "broken")) == 4
    assert run(shelf, candidate=str(tmp_path / "nan")) == 4
    assert run(shelf, forget=str(tmp_path / "empty.txt")) == 4
    lines = capsys.readouterr()
    assert lines.out == ""
    assert all(line.startswith("lethe: could not evaluate: ") for line in lines.err.splitlines())


@pytest.mark.parametrize(
    "more",
    [
        ["--references", "pool"],
        ["--candidate", "nowhere"],
        ["--policy", "nowhere.toml"],
        ["--columns", "label=nothing"],
        ["--device", "abacus"],
        ["--seed", "-1"],
        ["--serve-precision", "int3"],
        ["--task", "juggling"],
    ],
)
def test_bad_usage_exits_with_two_and_one_line(
    shelf: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shelf, *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_an_unknown_record_id_exits_with_two(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("nobody\n")
    assert run(shelf, forget=str(tmp_path / "ids.txt")) == 2
