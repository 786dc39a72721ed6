"""Which code and packages train and unlearn, without torch: plans are made by it too."""

import functools
import platform
from importlib import metadata
from pathlib import Path

from workers.modeling.directories import sha256_file, sha256_json


@functools.cache
def code_version() -> str:
    """The package version and a digest of the code that trains and unlearns."""
    workers = Path(__file__).parent.parent
    files = sorted(path for room in ("lineage", "methods", "modeling") for path in (workers / room).glob("*.py"))
    digest = sha256_json({f"{path.parent.name}/{path.name}": sha256_file(path) for path in files})
    try:
        version = metadata.version("lethe")
    except metadata.PackageNotFoundError:
        version = "0"
    return f"{version}+src.{digest[:16]}"


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
