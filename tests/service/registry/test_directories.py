"""Model directories that are refused, each with one line that names the file."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import BadModel
from service.registry.directories import check_labels, check_model
from tests.service.factories import image_model, language_model, write_safetensors

IMAGES = "image-classification"


def test_good_directories_pass(tmp_path: Path) -> None:
    facts = check_model(image_model(tmp_path / "image"), IMAGES)
    assert (facts.num_labels, facts.model_type, facts.training_record) == (3, "resnet", None)
    assert check_model(language_model(tmp_path / "text"), "causal-lm").num_labels is None


def _config(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "config.json"
        config = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)

    return change


def _index(path: Path) -> None:
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))


def _cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: (path / "config.json").unlink(), r"config\.json: missing"),
        (_write("config.json", b"{"), r"config\.json: not readable as JSON"),
        (_write("config.json", b"[]"), r"config\.json: not a JSON object"),
        (lambda path: (path / "model.safetensors").unlink(), r"model\.safetensors: missing"),
        (_write("model.safetensors", b"hello, this is no model"), r"model\.safetensors: not a safetensors file"),
        (_write("model.safetensors", struct.pack("<Q", 4) + b"null"), r"model\.safetensors: not a safetensors file"),
        (_cut, r"model\.safetensors: \d+ bytes where its header promises"),
        (_index, r"part-1\.safetensors: missing"),
        (_write("pytorch_model.bin", b"x"), r"pytorch_model\.bin: a pickle"),
        (_write("training_args.bin", b"x"), r"training_args\.bin: a pickle"),
        (_write("checkpoint-5/optimizer.pt", b"x"), r"checkpoint-5/optimizer\.pt: a pickle"),
        (_write("notes", pickle.dumps({"a": 1}, protocol=4)), r"notes: a pickle"),
        (_write("weights", b"PK\x03\x04data.pkl"), r"weights: a pickle"),
        (_config(model_type=None), r"config\.json: no model_type"),
        (_config(auto_map={"AutoModel": "code.Model"}), r"config\.json: auto_map"),
        (_config(architectures=["ResNetModel"]), r"config\.json: architecture ResNetModel does not fit"),
        (_config(id2label={"0": "a", "1": "b"}), r"config\.json: 2 labels, but classifier\.1\.weight has 3 rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    path = image_model(tmp_path / "model")
    spoil(path)
    with pytest.raises(BadModel, match=said) as caught:
        check_model(path, IMAGES)
    assert "\n" not in caught.value.detail


def test_a_label_count_that_does_not_fit_the_data_is_named(tmp_path: Path) -> None:
    path = image_model(tmp_path / "model")
    facts = check_model(path, IMAGES)
    check_labels(path, facts, 3)
    check_labels(path, facts, 2)
    with pytest.raises(BadModel, match=r"config\.json: 3 labels, but the data's largest label is 3"):
        check_labels(path, facts, 4)


def test_a_text_model_needs_its_tokenizer(tmp_path: Path) -> None:
    path = language_model(tmp_path / "model")
    (path / "tokenizer.json").unlink()
    with pytest.raises(BadModel, match="no tokenizer"):
        check_model(path, "causal-lm")
    for name in ("vocab.json", "merges.txt"):
        (path / name).write_text("{}")
    assert check_model(path, "causal-lm").model_type == "gpt2"


def test_sharded_weights_are_read_whole(tmp_path: Path) -> None:
    path = image_model(tmp_path / "model")
    (path / "model.safetensors").unlink()
    write_safetensors(path / "a.safetensors", {"classifier.1.weight": [4, 2]})
    write_safetensors(path / "b.safetensors", {"body": [2]})
    weights = {"classifier.1.weight": "a.safetensors", "body": "b.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(BadModel, match=r"3 labels, but classifier\.1\.weight has 4 rows"):
        check_model(path, IMAGES)
