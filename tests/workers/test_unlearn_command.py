"""`lethe unlearn`: an edit that was interrupted goes on when the command is given again."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.cli.main import main
from service.errors import Cancelled
from tests.e2e.world import RECIPE, write_digits
from workers.modeling import keeping
from workers.modeling.directories import sha256_file
from workers.modeling.problem import Meter


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command but for its `--out`, on a model of one epoch."""
    folder = tmp_path_factory.mktemp("interrupted")
    train, holdout = write_digits(folder, people=40)
    ids = pq.read_table(train, columns=["record_id"])["record_id"].to_pylist()
    (folder / "forget.txt").write_text("\n".join(ids[:20]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 1"))
    data = ["--data", str(train), "--holdout", str(holdout)]
    model = folder / "model"
    assert main(["train", "--recipe", str(folder / "recipe.toml"), *data, "--out", str(model)]) == 0
    told = ["--model", str(model), "--task", "image-classification", *data, "--forget", str(folder / "forget.txt")]
    return ["unlearn", *told, "--method", "finetune", "--params", '{"epochs": 2}', "--json"]


def test_an_interrupted_edit_goes_on_and_ends_in_the_same_bytes(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.0)
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    taken = Meter.step

    def until_the_sixth(self: Meter, step: int, *more: object) -> None:
        taken(self, step, *more)  # type: ignore[arg-type]
        if step == 6:
            raise Cancelled("somebody pressed a key")

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "step", until_the_sixth)
        assert main([*words, "--out", str(tmp_path / "again")]) != 0
    assert not (tmp_path / "again").exists()
    assert len(list(tmp_path.glob(".again.state-*"))) == 1
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    assert json.loads(capsys.readouterr().out)["notes"][0].startswith("resumed after step 5")
    weights = [sha256_file(tmp_path / name / "model.safetensors") for name in ("whole", "again")]
    assert weights[0] == weights[1]
    assert not list(tmp_path.glob(".again.state-*"))
    # Another seed, or other data, is another edit: nothing of this one is taken up.
    assert main([*words, "--seed", "9", "--out", str(tmp_path / "other")]) == 0
    assert not any("resumed" in note for note in json.loads(capsys.readouterr().out)["notes"])
