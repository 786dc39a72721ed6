"""What the bar for approximate methods is measured on: 20,000 small images, a tenth of them labelled wrong.

The images are Fashion-MNIST's (Xiao, Rasul and Vollgraf 2017) where a folder with its four files is given. Held-out
records have wrong labels as training records do; test records have none.
"""

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.reference_world import World
from service.catalogue.recipes import Recipe

NOISE = 0.1
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
RECIPE = Recipe.model_validate(
    {
        "model": {
            "task": "image-classification",
            "config": {
                "model_type": "resnet", "num_channels": 1, "embedding_size": 24, "hidden_sizes": [24, 48, 96],
                "depths": [1, 1, 1], "layer_type": "basic",
            },
        },
        "training": {"epochs": 10, "batch_size": 128, "learning_rate": 3e-3, "warmup_fraction": 0.3,
                     "schedule": "cosine"},
    }
).bare()  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """Records, forget sets by name ("random" or "mislabelled" in it says of which), retrains of each, references."""

    train: int
    held_out: int
    sets: dict[str, int]
    retrains: int
    pool: int


FULL = Sizes(20_000, 5_000, {"10 random": 10, "1 % random": 200, "10 % random": 2000, "100 mislabelled": 100}, 5, 32)
QUICK = Sizes(1_200, 500, {"10 random": 10, "40 mislabelled": 40}, 3, 16)


@dataclass(frozen=True)
class BarWorld(World):
    """Training records of as many people, and forget sets of two kinds."""

    recipe: Recipe = RECIPE

    def forget_sets(self) -> dict[str, list[str]]:
        """Name -> record ids."""
        found: dict[str, list[str]] = json.loads((self.folder / "sets.json").read_text())
        return found


def open_bar_world(folder: Path, data: Path | None, sizes: Sizes) -> BarWorld:
    """The world in a folder; written there from the images in `data` where it is not yet.

    Raises OSError where `data` lacks one of the four files, SystemExit where it is needed and not given.
    """
    if not (folder / "test.parquet").is_file():
        if data is None:
            raise SystemExit("bar: name the folder of the four Fashion-MNIST files, --data DIR")
        folder.mkdir(parents=True, exist_ok=True)
        _write_world(folder, data, sizes)
    if not (folder / "sets.json").is_file():
        (folder / "sets.json").write_text(json.dumps(_drawn(folder, sizes)))
    return BarWorld(folder)


def _drawn(folder: Path, sizes: Sizes) -> dict[str, list[str]]:
    table = pq.read_table(folder / "train.parquet", columns=["record_id", "wrong"])
    ids, wrong = (np.array(table[name].to_pylist()) for name in ("record_id", "wrong"))
    draw = np.random.default_rng(1)
    among = {name: ids[wrong] if "mislabelled" in name else ids for name in sizes.sets}
    return {name: sorted(draw.choice(among[name], size, replace=False).tolist()) for name, size in sizes.sets.items()}


def _write_world(folder: Path, data: Path, sizes: Sizes) -> None:
    images, labels = _read(data, "train")
    draw = np.random.default_rng(0)
    order = draw.permutation(len(labels))[: sizes.train + sizes.held_out]
    wrong = draw.random(len(order)) < NOISE
    given = np.where(wrong, (labels[order] + draw.integers(1, 10, len(order))) % 10, labels[order])
    for part, rows in (("train", slice(0, sizes.train)), ("held_out", slice(sizes.train, None))):
        _write(folder, part, images[order[rows]], given[rows], wrong[rows])
    images, labels = _read(data, "test")
    _write(folder, "test", images, labels, np.zeros(len(labels), dtype=bool))


def _read(data: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 28, 28] and labels [N] from the IDX files."""
    pixels, labels = (np.frombuffer(gzip.decompress((data / name).read_bytes()), np.uint8) for name in FILES[part])
    return pixels[16:].reshape(-1, 28, 28), labels[8:].astype(np.int64)


def _write(
    folder: Path, part: str, images: NDArray[np.uint8], labels: NDArray[np.int64], wrong: NDArray[np.bool_]
) -> None:
    names = [f"{part}-{at:05d}" for at in range(len(images))]
    columns = {
        "record_id": names,
        "subject_id": names,
        "image": [_png(image) for image in images],
        "label": labels.tolist(),
        "wrong": wrong.tolist(),
    }
    pq.write_table(pa.table(columns), folder / f"{part}.parquet")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
