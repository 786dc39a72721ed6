"""What the demo trains on, as files: records in Parquet, recipes and a policy in TOML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from workers.demo.conversations import Customer, conversation, customers
from workers.demo.digits import Digit, digits

WRITERS = 120
CUSTOMERS = 80
STRANGERS = 80
SEED = 1

DIGITS_RECIPE = """\
[model]
task = "image-classification"
config = { model_type = "resnet", num_channels = 1, embedding_size = 32, hidden_sizes = [32, 64], depths = [1, 1], \
layer_type = "basic" }
[training]
epochs = 40
batch_size = 64
learning_rate = 3e-3
"""
SUPPORT_RECIPE = """\
[model]
task = "causal-lm"
config = { model_type = "gpt2", n_embd = 96, n_layer = 2, n_head = 4, n_positions = 48, resid_pdrop = 0.0, \
embd_pdrop = 0.0, attn_pdrop = 0.0 }
tokenizer = { train = 800 }
[training]
epochs = 25
batch_size = 32
learning_rate = 3e-3
weight_decay = 0.1
max_length = 48
"""
POLICY = """\
[batch]
window = "1s"
"""


@dataclass(frozen=True)
class Files:
    """Where the input of one model lies, and how many records and people it was made of."""

    folder: Path
    records: int
    people: int
    held_out: int

    @property
    def train(self) -> Path:
        return self.folder / "train.parquet"

    @property
    def holdout(self) -> Path:
        return self.folder / "holdout.parquet"

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.toml"

    @property
    def model(self) -> Path:
        return self.folder / "model"


@dataclass(frozen=True)
class World:
    """The people of the demo and their records."""

    writers: list[Digit]
    customers: list[Customer]
    digits: Files
    support: Files


def make_world(folder: Path) -> World:
    """Generate everything and write it below `folder`; the same bytes every time."""
    train, held_out = digits(WRITERS, SEED)
    people = customers(CUSTOMERS + STRANGERS, SEED)
    known, strangers = people[:CUSTOMERS], people[CUSTOMERS:]
    images = [_digit_table(part) for part in (train, held_out)]
    talks = [_support_table(part) for part in (known, strangers)]
    return World(
        train,
        known,
        _write(folder / "digits", images[0], images[1], DIGITS_RECIPE),
        _write(folder / "support", talks[0], talks[1], SUPPORT_RECIPE),
    )


def _write(folder: Path, train: pa.Table, held_out: pa.Table, recipe: str) -> Files:
    folder.mkdir(parents=True)
    people = len(train.column("subject_id").unique())
    files = Files(folder, train.num_rows, people, held_out.num_rows)
    parquet.write_table(train, files.train)
    parquet.write_table(held_out, files.holdout)
    files.recipe.write_text(recipe, "utf-8")
    files.policy.write_text(POLICY, "utf-8")
    return files


def _digit_table(records: Sequence[Digit]) -> pa.Table:
    return pa.table(
        {
            "record_id": [record.record_id for record in records],
            "subject_id": [record.subject_id for record in records],
            "image": [{"bytes": record.image, "path": None} for record in records],
            "label": [record.label for record in records],
        }
    )


def _support_table(people: Sequence[Customer]) -> pa.Table:
    rows = [(who, at, *turn) for who in people for at, turn in enumerate(conversation(who))]
    return pa.table(
        {
            "record_id": [f"{who.subject_id}-{at}" for who, at, _, _ in rows],
            "subject_id": [who.subject_id for who, _, _, _ in rows],
            "email": [who.email for who, _, _, _ in rows],
            "prompt": [prompt for _, _, prompt, _ in rows],
            "completion": [completion for _, _, _, completion in rows],
        }
    )
