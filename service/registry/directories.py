"""Model directories, judged without torch: what must be there, what must not, and whether it fits the task."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import BadModel

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"})
_ENDINGS = {
    "image-classification": ("ForImageClassification",),
    "text-classification": ("ForSequenceClassification",),
    "causal-lm": ("ForCausalLM", "LMHeadModel"),
}
_HEADS = ("classifier.weight", "classifier.1.weight", "classifier.out_proj.weight", "score.weight")
_TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tokenizer.model",),
    ("spiece.model",),
)
_LONGEST_HEADER = 100 << 20

RECORD = "training_record.json"
RECORD_IDS = "training_records.parquet"
ENSEMBLE = "ensemble.json"
_MEMBER = re.compile(r"shard-\d{2,6}")


@dataclass(frozen=True)
class ModelFacts:
    """What the directory says about itself; `training_record` is null for a model trained elsewhere."""

    num_labels: int | None
    model_type: str
    training_record: dict[str, Any] | None


def check_model(path: Path, task: str) -> ModelFacts:
    """Judge a Hugging Face directory. Raises BadModel, one line that names the file, for:

    a missing file, a pickle, a damaged safetensors file, code of its own, an architecture of another task, and a
    classification head whose size is not the number of labels in config.json.
    """
    if not path.is_dir():
        raise BadModel(f"{path}: no such directory")
    _refuse_pickles(path)
    judged = [_check_weights(place, task) for place in _members(path)]
    config, num_labels = judged[0]
    if task != "image-classification" and not any(
        all((path / name).is_file() for name in kind) for kind in _TOKENIZERS
    ):
        raise BadModel(f"{path}: no tokenizer; put tokenizer.json, or vocab.json and merges.txt, into it")
    record = _read_json(path / RECORD) if (path / RECORD).is_file() else None
    return ModelFacts(num_labels, str(config.get("model_type")), record)


def check_labels(path: Path, facts: ModelFacts, data_labels: int | None) -> None:
    """Raises BadModel when the data has labels that the model has not."""
    if facts.num_labels is not None and data_labels is not None and data_labels > facts.num_labels:
        raise BadModel(
            f"{path}/config.json: {facts.num_labels} labels, but the data's largest label is {data_labels - 1}"
        )


def _members(path: Path) -> list[Path]:
    """The folders that hold weights: those of an ensemble of shards, or the directory itself."""
    if not (path / ENSEMBLE).is_file():
        return [path]
    names = _read_json(path / ENSEMBLE).get("members")
    if not isinstance(names, list) or not names or not all(_MEMBER.fullmatch(str(name)) for name in names):
        raise BadModel(f"{path}/{ENSEMBLE}: members must name folders such as shard-00")
    return [path / str(name) for name in names]


def _check_weights(path: Path, task: str) -> tuple[dict[str, Any], int | None]:
    config = _read_json(path / "config.json")
    if "auto_map" in config:
        raise BadModel(
            f"{path}/config.json: auto_map asks for code of its own; only architectures of transformers are served"
        )
    _check_architecture(path, config, task)
    tensors = _tensors(path)
    return config, _check_head(path, config, tensors) if task != "causal-lm" else None


def _refuse_pickles(path: Path) -> None:
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        name = file.relative_to(path).as_posix()
        if file.suffix.lower() in _PICKLES or _starts_like_pickle(file):
            raise BadModel(f"{path}/{name}: a pickle or binary checkpoint; save the model as safetensors and remove it")


def _starts_like_pickle(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(4)
    # Protocol 2 and later of pickle, and the zip archives of torch.save.
    return (
        len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5 and file.suffix != ".safetensors"
    ) or head == b"PK\x03\x04"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BadModel(f"{file}: missing") from None
    except (OSError, ValueError):
        raise BadModel(f"{file}: not readable as JSON") from None
    if not isinstance(content, dict):
        raise BadModel(f"{file}: not a JSON object")
    return content


def _check_architecture(path: Path, config: dict[str, Any], task: str) -> None:
    if not isinstance(config.get("model_type"), str):
        raise BadModel(f"{path}/config.json: no model_type")
    names = config.get("architectures") or []
    if names and not any(str(name).endswith(_ENDINGS[task]) for name in names):
        raise BadModel(f"{path}/config.json: architecture {names[0]} does not fit the task {task}")


def _tensors(path: Path) -> dict[str, list[int]]:
    """Tensor name -> shape, from the headers of all safetensors files."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        mapping = _read_json(index).get("weight_map")
        if not isinstance(mapping, dict) or not mapping:
            raise BadModel(f"{index}: no weight_map")
        files = sorted({path / str(name) for name in mapping.values()})
    else:
        files = [path / "model.safetensors"]
    shapes: dict[str, list[int]] = {}
    for file in files:
        shapes |= read_header(file)
    if not shapes:
        raise BadModel(f"{files[0]}: holds no tensors")
    return shapes


def read_header(file: Path) -> dict[str, list[int]]:
    """Tensor name -> shape of one safetensors file. Raises BadModel when it is missing, cut off or not one."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                raise BadModel(f"{file}: not a safetensors file, or cut off")
            header = json.loads(stream.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        shapes = {str(name): [int(side) for side in entry["shape"]] for name, entry in entries.items()}
    except FileNotFoundError:
        raise BadModel(f"{file}: missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise BadModel(f"{file}: not a safetensors file") from None
    if 8 + length + end != size:
        raise BadModel(f"{file}: {size} bytes where its header promises {8 + length + end}; copy it again")
    return shapes


def _check_head(path: Path, config: dict[str, Any], tensors: dict[str, list[int]]) -> int:
    labels = config.get("id2label")
    # What transformers takes when neither is written: two labels.
    count = len(labels) if isinstance(labels, dict) and labels else int(config.get("num_labels") or 2)
    for name in _HEADS:
        shape = tensors.get(name)
        if shape and len(shape) == 2 and shape[0] != count:
            raise BadModel(f"{path}/config.json: {count} labels, but {name} has {shape[0]} rows")
    return count
