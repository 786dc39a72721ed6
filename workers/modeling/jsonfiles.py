"""Small JSON files of a model directory, read with errors that name the file."""

import json
from pathlib import Path
from typing import Any

from service.errors import BadModel


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; BadModel when it is missing, unreadable or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadModel(f"{path.parent}: {path.name} is missing") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadModel(f"{path}: not valid JSON") from error
    if not isinstance(content, dict):
        raise BadModel(f"{path}: not a JSON object")
    return content
