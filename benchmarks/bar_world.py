"""What the bar for approximate methods is measured on: 20,000 small images, a tenth of them labelled wrong.

The images are Fashion-MNIST's (Xiao, Rasul and Vollgraf 2017) where a folder with its four files is given. Held-out
records have wrong labels as training records do; test records have none.
"""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.reference_world import World
from service.catalogue.recipes import Recipe

TRAIN, HELD_OUT = 20_000, 5_000
NOISE = 0.1
SETS = {"10 random": 10, "1 % random": 200, "10 % random": 2000, "100 mislabelled": 100}
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
class BarWorld(World):
    """20,000 training records of as many people, and forget sets of four kinds."""

    recipe: Recipe = RECIPE

    def forget_sets(self) -> dict[str, list[str]]:
        """Name -> record ids."""
        table = pq.read_table(self.folder / "train.parquet", columns=["record_id", "wrong"])
        ids, wrong = (np.array(table[name].to_pylist()) for name in ("record_id", "wrong"))
        draw = np.random.default_rng(1)
        chosen = {name: draw.choice(ids, SETS[name], replace=False) for name in SETS if "random" in name}
        chosen["100 mislabelled"] = draw.choice(ids[wrong], SETS["100 mislabelled"], replace=False)
        return {name: sorted(found.tolist()) for name, found in chosen.items()}


def make_bar_world(folder: Path, data: Path) -> BarWorld:
    """Write training, held-out and test records. Raises OSError where `data` lacks one of the four files."""
    images, labels = _read(data, "train")
    draw = np.random.default_rng(0)
    order = draw.permutation(len(labels))[: TRAIN + HELD_OUT]
    wrong = draw.random(len(order)) < NOISE
    given = np.where(wrong, (labels[order] + draw.integers(1, 10, len(order))) % 10, labels[order])
    for part, rows in (("train", slice(0, TRAIN)), ("held_out", slice(TRAIN, None))):
        _write(folder, part, images[order[rows]], given[rows], wrong[rows])
    images, labels = _read(data, "test")
    _write(folder, "test", images, labels, np.zeros(len(labels), dtype=bool))
    return BarWorld(folder)


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
