"""What a version's row keeps of its directory."""

import json
from pathlib import Path
from typing import Any

from service.registry.directories import RECORD
from service.registry.files import digest_directory


def describe_version(path: Path, files: dict[str, str] | None = None) -> dict[str, Any]:
    """`files`: {path: SHA-256}; `bytes`: their size; `training`: figures of the training record that planning needs."""
    listed = files if files is not None else digest_directory(path)
    size = sum((path / name).stat().st_size for name in listed)
    return {"files": listed, "bytes": size, "training": _training(path / RECORD)}


def _training(record: Path) -> dict[str, Any] | None:
    if not record.is_file():
        return None
    content = json.loads(record.read_bytes())
    return {key: content.get(key) for key in ("seconds", "data_digest", "weights_digest", "recipe_digest", "seed")}
