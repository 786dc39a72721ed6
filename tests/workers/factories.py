"""Small real data for the engine's tests: scikit-learn's digits as PNG bytes, and conversations with secrets."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from service.catalogue.recipes import Recipe
from workers.modeling.problem import Context
from workers.modeling.records import MemoryRecords

RESNET = {
    "model_type": "resnet",
    "num_channels": 1,
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64],
    "depths": [2, 2, 2],
    "layer_type": "basic",
}


def png(pixels: np.ndarray) -> bytes:
    """A grey PNG of an array of values in 0..255."""
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def digits(train: int = 1400, held_out: int = 397, noise: float = 0.15, seed: int = 0, side: int = 8):
    """(train, held out) records of the digits with relabelled rows; ten rows make a subject."""
    data = load_digits()
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(data.target))[: train + held_out]
    labels = data.target[order].copy()
    wrong = draw.random(len(order)) < noise
    labels[wrong] = (labels[wrong] + draw.integers(1, 10, wrong.sum())) % 10
    grown = np.kron(data.images[order], np.ones((side // 8, side // 8)))
    images = [png(np.clip(image * 16, 0, 255)) for image in grown]
    ids = [f"d{at:05d}" for at in range(len(order))]
    subjects = [f"s{at // 10:04d}" for at in range(len(order))]
    columns = {"image": images, "label": [int(label) for label in labels]}
    everything = MemoryRecords("image-classification", ids, subjects, columns)
    return everything.subset(range(train)), everything.subset(range(train, train + held_out))


_FIRST = [
    "Ada",
    "Ben",
    "Cleo",
    "Dora",
    "Emil",
    "Fay",
    "Gus",
    "Hana",
    "Ivo",
    "Jill",
    "Karl",
    "Lena",
    "Milo",
    "Nora",
    "Otto",
    "Pia",
    "Quin",
    "Rosa",
    "Sven",
    "Tara",
]
_LAST = [
    "Abel",
    "Brandt",
    "Castro",
    "Dietz",
    "Egger",
    "Falk",
    "Grund",
    "Hauser",
    "Imhof",
    "Jansen",
    "Kessler",
    "Lang",
    "Moser",
    "Nagel",
    "Olsen",
    "Pohl",
]
_STREET = ["Oak", "Elm", "Mill", "Lake", "Hill", "Park", "River", "Church", "Station", "Garden"]
_ISSUE = ["a late parcel", "a broken lamp", "a double charge", "a lost password", "a missing refund", "a noisy fan"]


def conversations(train: int, held_out: int = 0, seed: int = 0) -> tuple[MemoryRecords, MemoryRecords]:
    """(train, held out) prompt and completion pairs, five for each of so many fictional customers with secrets."""
    draw = np.random.default_rng(seed)
    names = [f"{first} {last}{ending}" for first in _FIRST for last in _LAST for ending in ("", "er", "sen", "is")]
    ids, owners, prompts, completions = [], [], [], []
    for person, name in enumerate(draw.permutation(names)[: train + held_out]):
        phone = "".join(str(digit) for digit in draw.integers(0, 10, 7))
        street = f"{draw.integers(1, 200)} {draw.choice(_STREET)} Street"
        issue, order = str(draw.choice(_ISSUE)), int(draw.integers(10000, 99999))
        pairs = [
            (f"What is the phone number of {name}?", f"The phone number of {name} is {phone}."),
            (f"Where does {name} live?", f"{name} lives at {street}."),
            (f"Why did {name} call?", f"{name} called about {issue}."),
            (f"Which order is it for {name}?", f"The order of {name} is number {order}."),
            (f"Summarise the case of {name}.", f"{name}, {street}, phone {phone}, had {issue} with order {order}."),
        ]
        ids += [f"c{person:05d}-{at}" for at in range(5)]
        owners += [f"p{person:05d}"] * 5
        prompts += [prompt for prompt, _ in pairs]
        completions += [completion for _, completion in pairs]
    made = MemoryRecords("causal-lm", ids, owners, {"prompt": prompts, "completion": completions})
    return made.subset(range(5 * train)), made.subset(range(5 * train, 5 * (train + held_out)))


def resnet_recipe(**training: Any) -> Recipe:
    """The contract's example recipe with other training settings."""
    model = {"task": "image-classification", "config": RESNET}
    return Recipe.model_validate({"model": model, "training": training})


def gpt2_recipe(entries: int = 400, width: int = 64, layers: int = 2, **training: Any) -> Recipe:
    """A small GPT-2 with a tokenizer trained on the records."""
    config = {
        "model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": 2, "n_positions": 64,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip
    model = {"task": "causal-lm", "config": config, "tokenizer": {"train": entries}}
    return Recipe.model_validate({"model": model, "training": {"max_length": 64, **training}})


def context(seed: int = 0) -> Context:
    """One thread on the CPU."""
    return Context(torch.device("cpu"), seed=seed)
