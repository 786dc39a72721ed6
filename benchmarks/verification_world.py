"""What the benchmark of verification is made of: three models, the people that they shall forget, and their pools."""

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gate_data import images
from benchmarks.processes import checked
from workers.demo.cast import choose_cast
from workers.demo.conversations import conversation
from workers.demo.world import Files, make_world

ROUNDS = 3
IMAGES, STRANGERS, FORGOTTEN = 20_000, 4_000, 300
_LARGE_RECIPE = """\
[model]
task = "image-classification"
config = { model_type = "resnet", num_channels = 1, embedding_size = 32, hidden_sizes = [64, 128], depths = [2, 2], \
layer_type = "basic" }
[training]
epochs = 12
batch_size = 64
learning_rate = 3e-3
"""


@dataclass(frozen=True)
class Subject:
    """A trained model, the people it shall forget, and its pool. `short`: epochs of a reference."""

    name: str
    task: str
    files: Files
    ids: Sequence[str]
    short: int
    retrains: int

    @property
    def forget(self) -> Path:
        return self.files.folder / "forget.txt"

    @property
    def pool(self) -> Path:
        return self.files.folder / "pool"

    def given(self) -> list[str]:
        """What commands on the data take."""
        return ["--task", self.task, "--data", str(self.files.train), "--holdout", str(self.files.holdout)]


def subjects(folder: Path, quick: bool) -> Iterator[Subject]:
    """The models of the demo and the larger world, written where they are not yet."""
    if not (folder / "demo").is_dir():
        make_world(folder / "making")
        (folder / "making").rename(folder / "demo")
    yield from _demo(folder / "demo", quick)
    if not quick:
        yield Subject("20,000 images", "image-classification", _large(folder / "large"), _chosen(), 1, 1)


def _demo(folder: Path, quick: bool) -> Iterator[Subject]:
    # The people are drawn again from the same seed; the files lie there already.
    with tempfile.TemporaryDirectory() as name:
        world = make_world(Path(name) / "again")
    cast = choose_cast(world)
    digits = [record.record_id for record in cast.written_by(cast.writers)]
    yield Subject("digits", "image-classification", _at(world.digits, folder / "digits"), digits, 8, ROUNDS)
    if not quick:
        talks = [f"{who.subject_id}-{at}" for who in cast.members for at in range(len(conversation(who)))]
        yield Subject("support", "causal-lm", _at(world.support, folder / "support"), talks, 4, ROUNDS)


def _at(files: Files, folder: Path) -> Files:
    return Files(folder, files.records, files.people, files.held_out)


def _large(folder: Path) -> Files:
    files = Files(folder, IMAGES, IMAGES, STRANGERS)
    if not files.recipe.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        made = images(IMAGES + STRANGERS, np.random.default_rng(0)).columns
        for path, rows in ((files.train, range(IMAGES)), (files.holdout, range(IMAGES, IMAGES + STRANGERS))):
            columns = {"record_id": _names("image", rows), "subject_id": _names("person", rows)}
            pq.write_table(pa.table(columns | {role: made[role][rows.start : rows.stop] for role in made}), path)
        files.recipe.write_text(_LARGE_RECIPE, "utf-8")
    return files


def _names(kind: str, rows: Sequence[int]) -> list[str]:
    return [f"{kind}-{at:05d}" for at in rows]


def _chosen() -> list[str]:
    return _names("image", sorted(np.random.default_rng(1).choice(IMAGES, FORGOTTEN, replace=False).tolist()))


def prepare(subject: Subject, count: int) -> None:
    """The original, its pool, and the forget set's file; what is there stays."""
    files = subject.files
    subject.forget.write_text("".join(f"{name}\n" for name in subject.ids))
    if not files.model.is_dir():
        options = ["--data", str(files.train), "--holdout", str(files.holdout), "--out", str(files.model)]
        checked("train", "--recipe", str(files.recipe), *options)
    short = files.folder / "short.toml"
    shortened = re.sub(r"(?m)^epochs = \d+$", f"epochs = {subject.short}", files.recipe.read_text("utf-8"))
    short.write_text(shortened, "utf-8")
    began = time.monotonic()
    options = ["--model", str(files.model), "--out", str(subject.pool), "--recipe", str(short)]
    checked("references", *subject.given(), *options, "--count", str(count), "--seed", "1")
    print(f"  {subject.name}: pool ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
