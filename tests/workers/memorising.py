"""A GPT-2 small enough to learn made-up secrets by heart in seconds, and what a test does to it."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.workers.factories import MemoryRecords
from workers.modeling.batching import Encoded
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel
from workers.modeling.tokenizers import train_tokenizer

LENGTH = 16
ENTRIES = 700
DIGITS = 6
_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwz" for vowel in "aeiou"]

Weigh = Callable[[torch.Tensor], torch.Tensor]


def secrets(count: int, seed: int, name: str = "c") -> MemoryRecords:
    """Records like "ka lo" with "4 7 1 9 0 2": no two names are alike, and all are from one generator."""
    draw = np.random.default_rng(seed)
    names = [f"{_SYLLABLES[at // 95]} {_SYLLABLES[at % 95]}" for at in np.random.default_rng(0).permutation(95 * 95)]
    digits = draw.integers(0, 10, (count, DIGITS))
    start = 2000 * (seed % 4)
    ids = [f"{name}{at:05d}" for at in range(count)]
    columns = {"prompt": names[start : start + count], "completion": [" ".join(map(str, row)) for row in digits]}
    return MemoryRecords("causal-lm", ids, ids, columns)


def together(*parts: MemoryRecords) -> MemoryRecords:
    """Records one after the other."""
    columns = {role: [value for part in parts for value in part.columns[role]] for role in parts[0].roles}
    ids = np.concatenate([part.ids for part in parts]).tolist()
    return MemoryRecords("causal-lm", ids, ids, columns)


def untrained(seed: int = 0, width: int = 64) -> LoadedModel:
    """A two-layer GPT-2 whose tokenizer knows letters and digits alone: it is made from other secrets."""
    task = CausalLanguageModelling(train_tokenizer(secrets(200, 99), ENTRIES, LENGTH), LENGTH)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(task.tokenizer), n_embd=width, n_layer=2, n_head=4, n_positions=LENGTH, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return LoadedModel(AutoModelForCausalLM.from_config(config).eval(), task, Path())


def copied(loaded: LoadedModel) -> LoadedModel:
    """The same model, to be changed."""
    model: PreTrainedModel = copy.deepcopy(loaded.model)
    return LoadedModel(model, loaded.task, loaded.dir)


def train(
    loaded: LoadedModel,
    records: MemoryRecords,
    steps: int,
    rate: float,
    weigh: Weigh = torch.mean,
    batch: int = 64,
    seed: int = 0,
    keep: MemoryRecords | None = None,
) -> LoadedModel:
    """So many AdamW steps on random batches, minimising `weigh` of their losses [B] and the mean loss of `keep`."""
    encoded = Encoded(loaded.task, records)
    kept = Encoded(loaded.task, keep) if keep is not None else None
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=rate, weight_decay=0.0)
    draw = np.random.default_rng(seed)
    order: list[int] = []
    for step in range(steps):
        if len(order) < batch:
            order += draw.permutation(len(records)).tolist()
        rows, order = order[:batch], order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20)
        loss = weigh(loaded.task.losses(loaded.model, encoded.batch(rows, torch.device("cpu"))))
        if kept is not None:
            beside = draw.integers(0, len(kept), batch).tolist()
            loss = loss + loaded.task.losses(loaded.model, kept.batch(beside, torch.device("cpu"))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loaded
