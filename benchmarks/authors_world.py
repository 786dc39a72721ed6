"""What the bar for language models is measured on: questions and answers about a hundred fictional authors.

They are the last 2,000 rows of TOFU (Maini et al. 2024, arXiv:2401.06121); ten of those authors are forgotten, and
people of the first 2,000 rows are held out. The model is a small Llama; its tokenizer is GPT-2's, cut down to the
entries that these texts use, which reads them as the whole one does.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reference_world import World
from service.catalogue.recipes import Recipe, parse_recipe
from service.datasets.records import RecordTable, open_records
from workers.modeling.tokenizers import read_tokenizer

FORGET, TRAIN, HELD_OUT = 200, 2_000, 800
END = "<|endoftext|>"
_LENGTH = 256
_RECIPE = {
    "model": {
        "task": "causal-lm",
        "config": {
            "model_type": "llama", "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
            "num_attention_heads": 4, "max_position_embeddings": _LENGTH, "tie_word_embeddings": True,
        },
    },
    "training": {"epochs": 12, "batch_size": 8, "learning_rate": 3e-3, "max_length": _LENGTH},
}  # fmt: skip


@dataclass(frozen=True)
class AuthorsWorld(World):
    """Twenty records an author."""

    def forget_sets(self) -> dict[str, list[str]]:
        """The records of ten authors."""
        rows = _lines(self.folder / "train.jsonl")
        return {"ten authors": [row["record_id"] for row in rows[-FORGET:]]}

    def records(self, part: str) -> RecordTable:
        """Records of "train" or "held_out"."""
        return open_records(self.folder / f"{part}.jsonl", self.task)


def open_authors(folder: Path, data: Path | None, quick: bool = False) -> AuthorsWorld:
    """The world in a folder; written there from `data`/tofu and `data`/gpt2-tokenizer where it is not yet.

    Raises SystemExit where `data` is needed and not given, OSError where it lacks a file.
    """
    if not (folder / "held_out.jsonl").is_file():
        if data is None:
            raise SystemExit("authors: name the folder that holds tofu/full.jsonl and gpt2-tokenizer/, --data DIR")
        folder.mkdir(parents=True, exist_ok=True)
        rows = _lines(data / "tofu" / "full.jsonl")
        texts = [f"{row['question']} {row['answer']}" for row in rows]
        cut_tokenizer(data / "gpt2-tokenizer", texts, folder / "tokenizer")
        _write(folder / "train.jsonl", rows[-TRAIN:])
        _write(folder / "held_out.jsonl", rows[:HELD_OUT])
    return AuthorsWorld(folder, "causal-lm", _recipe(folder, quick), None)


def _recipe(folder: Path, quick: bool) -> Recipe:
    content = json.loads(json.dumps(_RECIPE))
    content["model"]["tokenizer"] = str(folder / "tokenizer")
    if quick:
        content["training"]["epochs"] = 1
    return parse_recipe(content).bare()


def cut_tokenizer(whole: Path, texts: Iterable[str], out: Path) -> None:
    """Write vocab.json and merges.txt of a byte-level BPE that reads these texts as the one in `whole` does.

    A merge that takes part in no token of the texts was never made in them, so it can be left out.
    """
    vocabulary: dict[str, int] = json.loads((whole / "vocab.json").read_text("utf-8"))
    merges = [line.split(" ") for line in (whole / "merges.txt").read_text("utf-8").splitlines()[1:] if line]
    made_of = {first + second: (first, second) for first, second in merges}
    tokenizer = read_tokenizer(whole, _LENGTH)
    waiting = {token for text in texts for token in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])}
    needed = {END} | {token for token in vocabulary if len(token) == 1}
    while waiting:
        token = waiting.pop()
        if token not in needed:
            needed.add(token)
            waiting.update(made_of.get(token, ()))
    kept = sorted(needed, key=vocabulary.__getitem__)
    out.mkdir(exist_ok=True)
    (out / "vocab.json").write_text(json.dumps({token: at for at, token in enumerate(kept)}), "utf-8")
    lines = [f"{first} {second}" for first, second in merges if first + second in needed]
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", "utf-8")


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    told = [
        {
            "record_id": f"row-{row['row']}",
            "subject_id": f"author-{row['author_id']}",
            "prompt": row["question"],
            "completion": row["answer"],
        }
        for row in rows
    ]
    draft = path.with_suffix(".partial")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told), "utf-8")
    draft.replace(path)
