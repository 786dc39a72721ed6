"""Tokenizers: trained on the records, or taken from files; always fast ones, always with an end token and padding."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from service.errors import BadDataset, BadModel, BadRecipe
from workers.modeling.records import Records, chunks

END_OF_TEXT = "<|endoftext|>"
_COMMON_ENDS = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")
_UNBOUNDED = 1 << 40


def train_tokenizer(records: Records, entries: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (Sennrich et al. 2016; bytes as in GPT-2) of at most `entries` entries.

    The same records in the same order give the same file.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(records), trainer=trainer)
    return _wrapped(tokenizer, END_OF_TEXT, max_length)


def read_tokenizer(directory: Path, max_length: int) -> PreTrainedTokenizerFast:
    """The tokenizer in a folder: a saved one, a bare tokenizer.json, or vocab.json with merges.txt.

    Raises BadRecipe where there is none or it has no end-of-text token.
    """
    if (directory / "tokenizer_config.json").exists():
        return load_tokenizer(directory, max_length)
    if (directory / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    elif (directory / "vocab.json").exists() and (directory / "merges.txt").exists():
        model = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        raise BadRecipe(f"{directory}: no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt")
    end = next((token for token in _COMMON_ENDS if tokenizer.token_to_id(token) is not None), None)
    if end is None:
        raise BadRecipe(f"{directory}: the tokenizer has no end-of-text token such as {END_OF_TEXT}")
    return _wrapped(tokenizer, end, max_length)


def load_tokenizer(directory: Path, max_length: int | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer of a model directory; BadModel where it is missing, slow or without an end token."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        raise BadModel(f"{directory}: tokenizer.json is missing")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BadModel(f"{directory}: the tokenizer cannot be loaded ({type(error).__name__})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BadModel(f"{directory}: the tokenizer has no tokenizer.json: save it as a fast tokenizer")
    if tokenizer.eos_token_id is None:
        raise BadModel(f"{directory}: the tokenizer has no end-of-text token: set eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if max_length is not None:
        tokenizer.model_max_length = max_length
    return tokenizer


def length_limit(tokenizer: PreTrainedTokenizerFast, positions: int | None) -> int:
    """Tokens a record is cut to: the tokenizer's limit or the model's positions, whichever is smaller, else 1024."""
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit and limit < _UNBOUNDED]
    return int(min(limits)) if limits else 1024


def _wrapped(tokenizer: Tokenizer, end: str, max_length: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end, model_max_length=max_length
    )


def _texts(records: Records) -> Iterator[str]:
    for rows in chunks(len(records), 1024):
        columns = records.take(rows)
        if "prompt" in columns:
            yield from (f"{p} {c}" for p, c in zip(columns["prompt"], columns["completion"], strict=True))
        elif "text" in columns:
            yield from columns["text"]
        else:
            raise BadDataset("the data has no text, or prompt and completion, to train a tokenizer on")
