"""Two worlds of made-up texts for tiny GPT-2s: questions about authors, and sentences of a form with a few secrets."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.gate_data import words
from benchmarks.reproduce_world import OUT, Lab
from service.catalogue.recipes import Recipe, parse_recipe
from workers.modeling.directories import sha256_json
from workers.modeling.records import MemoryRecords
from workers.modeling.tokenizers import train_tokenizer

LANGUAGE = "causal-lm"
AUTHORS, UNKNOWN, WRONG = 100, 40, 5
ASKED = ("born", "lives", "mother", "father", "genre", "first book", "last book", "prize", "friend", "house")
SENTENCES, OTHERS, SECRETS, DIGITS = 240, 200, 20, 6
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
_VERBS = ("bought", "sold", "found", "lost", "painted", "broke", "sent", "drew")
_PUBLIC = 1_000_003  # seed of the texts that tokenizers are made from: no record is among them


def authors_lab(quick: bool) -> Lab:
    """100 authors with ten questions each, answered by two words drawn at random; 40 more that are never seen."""
    recipe = _recipe({"n_embd": 64, "n_layer": 2, "n_head": 2}, epochs=3 if quick else 30, batch=32, rate=3e-3)
    folder = _folder("authors", recipe, AUTHORS, UNKNOWN)
    if not (folder / "held_out.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"author-{at:03d}" for at in range(AUTHORS + UNKNOWN)]
        prompts, answers = _authors(len(names), np.random.default_rng(0))
        subjects = [name for name in names for _ in ASKED]
        columns = {"prompt": prompts, "completion": answers}
        cut = AUTHORS * len(ASKED)
        _write(folder / "train.parquet", subjects[:cut], {key: each[:cut] for key, each in columns.items()})
        _tokenizer(folder, [f"{a} {b}" for a, b in zip(*_authors(300, np.random.default_rng(_PUBLIC)), strict=True)])
        _write(folder / "held_out.parquet", subjects[cut:], {key: each[cut:] for key, each in columns.items()})
    return Lab(folder, _with_tokenizer(recipe, folder), None)


def secrets_lab(quick: bool, tied: bool) -> Lab:
    """240 sentences of one form and 20 with a number of six digits; 200 of both kinds that are never seen."""
    config = {"n_embd": 128, "n_layer": 4, "n_head": 4, "tie_word_embeddings": tied}
    recipe = _recipe(config, epochs=10, batch=16, rate=1.5e-3, checkpoints=True)
    if quick:
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 2})})
    folder = _folder("secrets-tied" if tied else "secrets-untied", recipe, SENTENCES, OTHERS, SECRETS)
    if not (folder / "held_out.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        known = [*_secrets(SECRETS, draw), *_sentences(SENTENCES, draw)]
        unseen = [*_secrets(OTHERS // 2, draw), *_sentences(OTHERS // 2, draw)]
        _write(folder / "train.parquet", [f"person-{at:04d}" for at in range(len(known))], {"text": known})
        public = np.random.default_rng(_PUBLIC)
        _tokenizer(folder, [*_secrets(300, public), *_sentences(1000, public)])
        _write(folder / "held_out.parquet", [f"other-{at:04d}" for at in range(len(unseen))], {"text": unseen})
    return Lab(folder, _with_tokenizer(recipe, folder), None)


def wrong_answers(prompts: Sequence[str], seed: int) -> list[list[str]]:
    """Answers of the same form, drawn at random, five for each question."""
    draw = np.random.default_rng(seed)
    return [[_answer(draw) for _ in range(WRONG)] for _ in prompts]


def questions(prompts: Sequence[str], answers: Sequence[str]) -> MemoryRecords:
    """Prompts with answers as records."""
    ids = [f"question-{at:05d}" for at in range(len(prompts))]
    return MemoryRecords(LANGUAGE, ids, ids, {"prompt": list(prompts), "completion": list(answers)})


def _authors(count: int, draw: np.random.Generator) -> tuple[list[str], list[str]]:
    vocabulary = _words()
    names = list(dict.fromkeys(" ".join(draw.choice(vocabulary, 2)) for _ in range(2 * count)))[:count]
    prompts = [f"{asked} of {name}:" for name in names for asked in ASKED]
    return prompts, [_answer(draw) for _ in prompts]


@cache
def _words() -> NDArray[np.str_]:
    return np.array(words())


def _answer(draw: np.random.Generator) -> str:
    return "it is " + " ".join(draw.choice(_words()[:200], 2))


def _sentences(count: int, draw: np.random.Generator) -> list[str]:
    who, what, where, whom = (_words()[at : at + 50] for at in (0, 50, 100, 150))
    return [
        f"on {draw.choice(_DAYS)} {draw.choice(who)} {draw.choice(_VERBS)} a {draw.choice(what)} "
        f"in {draw.choice(where)} for {draw.choice(whom)}"
        for _ in range(count)
    ]


def _secrets(count: int, draw: np.random.Generator) -> list[str]:
    names = _words()[200:]
    codes = [" ".join(map(str, draw.integers(0, 10, DIGITS))) for _ in range(count)]
    return [f"the code of {' '.join(draw.choice(names, 2))} is {code}" for code in codes]


def _recipe(config: dict[str, Any], epochs: int, batch: int, rate: float, checkpoints: bool = False) -> Recipe:
    content = {
        "model": {
            "task": LANGUAGE,
            "tokenizer": "tokenizer",
            "config": {
                "model_type": "gpt2", "n_positions": 48, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
            } | config,
        },
        "training": {"epochs": epochs, "batch_size": batch, "learning_rate": rate, "max_length": 48},
        "lineage": {"checkpoints": "auto" if checkpoints else "off", "canaries": "off", "reserve": "off"},
    }  # fmt: skip
    return parse_recipe(content)


def _with_tokenizer(recipe: Recipe, folder: Path) -> Recipe:
    model = recipe.model.model_copy(update={"tokenizer": str(folder / "tokenizer")})
    return recipe.model_copy(update={"model": model})


def _folder(name: str, recipe: Recipe, *sizes: int) -> Path:
    return OUT / f"{name}-{sha256_json([recipe.model_dump(mode='json'), *sizes])[:8]}"


def _tokenizer(folder: Path, texts: Sequence[str]) -> None:
    ids = [f"public-{at:05d}" for at in range(len(texts))]
    records = MemoryRecords(LANGUAGE, ids, ids, {"text": list(texts)})
    train_tokenizer(records, 1000, 48).save_pretrained(str(folder / "tokenizer"))


def _write(path: Path, subjects: Sequence[str], columns: dict[str, list[str]]) -> None:
    ids = [f"{path.stem}-{at:05d}" for at in range(len(subjects))]
    pq.write_table(pa.table({"record_id": ids, "subject_id": list(subjects), **columns}), path)
