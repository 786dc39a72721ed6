"""Model directories: safetensors only, complete and consistent, or one line that names the file or field."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.errors import BadModel, JobError
from tests.workers.conftest import Line
from workers.modeling.loading import load_model, save_model

CPU = torch.device("cpu")


@pytest.fixture
def directory(digits_line: Line, tmp_path: Path) -> Path:
    return shutil.copytree(digits_line.base, tmp_path / "model")


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def pickled(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps({"a": 1}))

    return change


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    pickled("pytorch_model.bin")(folder)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def fill(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def headless(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if "classifier" not in name}, path)


LABELS = {str(label): f"L{label}" for label in range(7)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (only_pickle, "pytorch_model.bin: pickle files are refused"),
        (pickled("training_args.bin"), "training_args.bin"),
        (pickled("extra/weights.pt"), "weights.pt"),
        (pickled("a.pkl"), "a.pkl"),
        (drop("config.json"), "config.json is missing"),
        (drop("model.safetensors"), "model.safetensors is missing"),
        (fill("config.json", b"{"), "config.json: not valid JSON"),
        (fill("config.json", b"[]"), "config.json: not a JSON object"),
        (fill("model.safetensors", b"\xff" * 64), "model.safetensors: not a valid safetensors file"),
        (truncate, "model.safetensors: not a valid safetensors file"),
        (fill("model.safetensors.index.json", b'{"weight_map": {"a": "part-1.safetensors"}}'), "part-1.safetensors"),
        (fill("model.safetensors.index.json", b"{}"), "weight_map is missing"),
        (config(id2label=LABELS, label2id={}), "7 labels do not fit the weights"),
        (config(auto_map={"AutoModel": "evil.Model"}), "auto_map"),
        (config(model_type=None), "model_type is missing"),
        (config(model_type="nonsense"), "cannot be loaded"),
        (config(hidden_sizes=[16, 32, 65]), "cannot be loaded"),
        (headless, "the weights lack classifier"),
        (fill("preprocessor_config.json", b'{"crop_pct": 0.9}'), "crop_pct is not supported"),
    ],
)
def test_a_directory_that_cannot_be_used_is_one_line(
    directory: Path, change: Callable[[Path], None], told: str
) -> None:
    change(directory)
    with pytest.raises(BadModel) as caught:
        load_model(directory, "image-classification", CPU)
    assert told in caught.value.detail
    assert "\n" not in caught.value.detail


def test_no_directory_another_task_and_no_tokenizer_are_refused(directory: Path, chat_line: Line) -> None:
    with pytest.raises(BadModel, match="no such model directory"):
        load_model(directory / "none", "image-classification", CPU)
    with pytest.raises(BadModel, match="task 'detection' is unknown"):
        load_model(directory, "detection", CPU)
    with pytest.raises(BadModel, match="cannot be loaded for causal-lm"):
        load_model(directory, "causal-lm", CPU)
    shutil.copytree(chat_line.base, directory / "chat", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(BadModel, match=r"tokenizer\.json is missing"):
        load_model(directory / "chat", "causal-lm", CPU)


def test_saving_keeps_weights_and_companions(chat_line: Line, tmp_path: Path) -> None:
    loaded = load_model(chat_line.base, "causal-lm", CPU)
    save_model(loaded, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (chat_line.base, tmp_path))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "tokenizer.json").read_bytes() == (chat_line.base / "tokenizer.json").read_bytes()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_weights_that_are_not_finite_are_never_saved(digits_line: Line, tmp_path: Path) -> None:
    loaded = load_model(digits_line.base, "image-classification", CPU)
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(torch.nan)
    with pytest.raises(JobError, match="not finite"):
        save_model(loaded, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
