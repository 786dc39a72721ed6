"""Data and a small model on disk that has memorised some of it, and `lethe qualify` as typed on them."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel

from service.catalogue.specs import MethodSpec
from service.cli.main import main
from tests.e2e.world import write_digits
from workers.modeling.problem import Context, Outcome, Problem

TASK = ["--task", "image-classification"]
RECIPE = """
[model]
task = "image-classification"
[model.config]
model_type = "resnet"
num_channels = 1
embedding_size = 8
hidden_sizes = [8, 16]
depths = [1, 1]
layer_type = "basic"
[training]
epochs = 16
batch_size = 16
learning_rate = 5e-3
seed = 7
[lineage]
checkpoints = "off"
canaries = "off"
"""


def make_shelf(folder: Path) -> Path:
    """200 images of fifty people with three in ten labels wrong, 420 held out, and a model that has memorised."""
    _, holdout = write_digits(folder, people=50, rows=4, noise=0.3)
    pq.write_table(pq.read_table(holdout).slice(0, 420), holdout)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "quick.toml").write_text(RECIPE.replace("epochs = 16", "epochs = 4"))
    words = ["train", "--recipe", str(folder / "recipe.toml"), *data_of(folder), "--out", str(folder / "model")]
    assert main(words) == 0
    return folder


def data_of(shelf: Path) -> list[str]:
    return ["--data", str(shelf / "train.parquet"), "--holdout", str(shelf / "holdout.parquet")]


def words_of(shelf: Path, method: str, work: Path, *more: str) -> list[str]:
    """The command without the program's name."""
    words = ["qualify", "--model", str(shelf / "model"), *TASK, *data_of(shelf), "--method", method]
    return [*words, "--work", str(work), "--out", str(work.with_suffix(".json")), *more]


class NoParams(BaseModel):
    """Takes none."""


def do_nothing(problem: Problem, params: NoParams, context: Context, out_dir: Path) -> Outcome:
    """A method that leaves the model as it is."""
    del params, context
    for path in problem.base_dir.glob("*.*"):
        if path.is_file() and "training_record" not in path.name:
            shutil.copy(path, out_dir)
    return Outcome(0, 0, 0, [], exact=False)


DO_NOTHING = MethodSpec(
    name="do_nothing", target=f"{__name__}:do_nothing", params=NoParams, kind="approximate",
    tasks=("image-classification",), needs=(), summary="", guarantee="", source="",
)  # fmt: skip
