"""Small datasets and model directories, made without torch."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.registry.models import Version
from service.registry.service import register_model


def png(shade: int, side: int = 4) -> bytes:
    """A grey square as a PNG file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes([shade]) * side) * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def image_rows(subjects: int = 6, per_subject: int = 4, labels: int = 3) -> dict[str, list[Any]]:
    """Columns of an image dataset with an e-mail address and a phone number for each subject."""
    count = subjects * per_subject
    people = [number // per_subject for number in range(count)]
    return {
        "record_id": [f"r{number:04}" for number in range(count)],
        "subject_id": [f"s{person}" for person in people],
        "mail": [f"Person{person}@Example.org" for person in people],
        "tel": [f"+49 30 10000{person}" for person in people],
        "image": [{"bytes": png(number % 251), "path": None} for number in range(count)],
        "label": [number % labels for number in range(count)],
    }


def write_parquet(path: Path, rows: dict[str, list[Any]]) -> Path:
    """A Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path, write_page_checksum=True)
    return path


def text_rows(count: int = 12) -> list[dict[str, Any]]:
    """Records of a causal language model."""
    return [{"record_id": f"t{n}", "subject_id": f"s{n // 3}", "text": f"line {n}"} for n in range(count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_safetensors(path: Path, shapes: dict[str, list[int]], fill: int = 0) -> None:
    """A safetensors file of float32 tensors that all hold the same bytes."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes([fill]) * end)


def image_model(path: Path, labels: int = 3, fill: int = 0) -> Path:
    """A directory that looks like a ResNet classifier; `fill` tells two of them apart."""
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "id2label": {str(number): f"LABEL_{number}" for number in range(labels)},
    }
    (path / "config.json").write_text(json.dumps(config))
    write_safetensors(path / "model.safetensors", {"classifier.1.weight": [labels, 2]}, fill)
    return path


def language_model(path: Path) -> Path:
    """A directory that looks like a GPT-2."""
    path.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    write_safetensors(path / "model.safetensors", {"transformer.wte.weight": [4, 2]})
    return path


IDENTIFIERS = {"email": "mail", "phone": "tel"}


def register_images(folder: Path, name: str = "digits", **options: Any) -> Version:
    """Register an image model on a dataset of six people."""
    data = options.pop("data", None) or write_parquet(folder / f"{name}.parquet", image_rows())
    model = options.pop("path", None) or image_model(folder / f"{name}-model")
    return register_model(name, model, "image-classification", data, identifiers=IDENTIFIERS, **options)
