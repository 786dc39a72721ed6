"""A tokenizer that was cut down to some texts reads them as the whole one does."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.authors_world import END, cut_tokenizer
from workers.modeling.tokenizers import read_tokenizer

TEXTS = [f"the author of book {number} lives in a town by the river {name}" for number in range(40)
         for name in ("Arno", "Ebro", "Oder", "Tajo")]  # fmt: skip
OTHERS = [f"nothing here has to do with any {word}ing at all" for word in ("writ", "read", "print", "bind", "sell")] * 8


def _whole(folder: Path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator(TEXTS + OTHERS, trainer)
    folder.mkdir()
    tokenizer.model.save(str(folder))
    return folder


def test_what_is_left_reads_the_texts_as_before(tmp_path: Path) -> None:
    whole = _whole(tmp_path / "whole")
    cut_tokenizer(whole, TEXTS, tmp_path / "cut")
    sizes = [len(json.loads((folder / "vocab.json").read_text())) for folder in (whole, tmp_path / "cut")]
    assert sizes[1] < sizes[0], "nothing was left out"
    before, after = (read_tokenizer(folder, 128) for folder in (whole, tmp_path / "cut"))
    for text in TEXTS:
        told = [one.convert_ids_to_tokens(one(text)["input_ids"]) for one in (before, after)]
        assert told[0] == told[1]
    assert after.decode(after(OTHERS[0])["input_ids"]) == OTHERS[0], "other texts can still be read, in smaller pieces"
