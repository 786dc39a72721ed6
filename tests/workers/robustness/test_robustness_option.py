"""`lethe evaluate --robustness` as a user types it."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.cli.main import main
from tests.e2e.world import RECIPE, write_digits


def test_the_option_adds_its_checks_to_the_same_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_digits(tmp_path, people=60, rows=5)
    ids = pq.read_table(tmp_path / "train.parquet")["record_id"].to_pylist()
    (tmp_path / "forget.txt").write_text("\n".join(ids[:60]) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 3"))
    data = ["--data", str(tmp_path / "train.parquet"), "--holdout", str(tmp_path / "holdout.parquet")]
    original, retrained = str(tmp_path / "original"), str(tmp_path / "retrained")
    assert main(["train", "--recipe", str(tmp_path / "recipe.toml"), *data, "--out", original]) == 0
    forget = ["--task", "image-classification", *data, "--forget", str(tmp_path / "forget.txt")]
    assert main(["unlearn", "--model", original, *forget, "--method", "retrain", "--out", retrained]) == 0
    capsys.readouterr()
    words = ["evaluate", "--original", original, "--candidate", retrained, *forget, "--retrained", retrained, "--json"]
    assert main(words) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([*words, "--robustness"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == plain["schema"] == "lethe/evaluation/2"
    assert told.keys() == plain.keys()
    added = [check["id"] for check in told["checks"][len(plain["checks"]) :]]
    assert added[:4] == ["precision_bf16", "precision_int8", "precision_int4", "relearning_excess"]
    assert added[4:] == ["perturbed_forget_gap", "shifted_forget_gap"]
    assert told["checks"][: len(plain["checks"])] == plain["checks"]
    # The candidate is the retrained model itself: taught the same, it answers the same.
    assert told["metrics"]["relearning_excess_by_step"] == [0.0] * 4
    assert told["forward_passes"]["candidate"] > plain["forward_passes"]["candidate"]
