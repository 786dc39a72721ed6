"""Forgotten records, slightly changed, with the labels that they had: by augmentation, and by a small generator.

Augmentation: images are moved by up to a sixteenth of their side, lightened or darkened by up to 15 % and get noise of
5 % of the range; of texts (prompts, where there are any) a tenth of the words is left out.

The generator stands for SPD-GAN (Zuo et al. 2025, arXiv 2401.04385, architecture and loss not confirmed): a small
convolutional network adds at most `REACH` of the range to each pixel and is trained, against a discriminator of
changed from unchanged images, to keep the original model's answer and to use its reach. Images only.
"""

import io
import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from service.verification.statistics import NotMeasurable
from workers.modeling.devices import generator
from workers.modeling.images import ImageClassification
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context, Meter
from workers.modeling.records import MemoryRecords, Records

REACH, STEPS = 0.08, 150
"""Of a generator: what it may add, in shares of the range, and the steps that it is trained."""

_DRAW, _TRAIN = 51, 52
_LIGHT, _NOISE, _DROPPED = 0.15, 0.05, 0.1
_BATCH, _RATE, _WIDTH = 32, 2e-3, 16
_FOOLING = 0.3


def augmented(loaded: LoadedModel, records: Records, seed: int) -> MemoryRecords:
    """The records with changed images or texts, in their order; the same for the same seed."""
    draw = np.random.default_rng([seed, _DRAW])
    columns = dict(records.take(range(len(records))))
    if "image" in columns:
        columns["image"] = packed(_augmented_pixels(_pixels(loaded, records), draw))
    else:
        role = "prompt" if "prompt" in columns else "text"
        columns[role] = [_thinned(text, draw) for text in columns[role]]
    return MemoryRecords(records.task, records.ids, records.subjects, columns)


def generated(loaded: LoadedModel, records: Records, context: Context) -> MemoryRecords | NotMeasurable:
    """The records changed by a generator that is trained on them with this model. Raises Cancelled."""
    if not isinstance(loaded.task, ImageClassification):
        return NotMeasurable("the generator changes images alone")
    pixels = torch.from_numpy(_pixels(loaded, records).astype(np.float32) / 255).to(context.device)
    labels = torch.tensor(records.column("label"), device=context.device)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(context.seed)
        maker = _trained(loaded, pixels, labels, context)
    with torch.no_grad():
        made = torch.cat([maker(part) for part in pixels.split(256)])
    columns = dict(records.take(range(len(records))))
    columns["image"] = packed((made * 255).round().byte().cpu().numpy())
    return MemoryRecords(records.task, records.ids, records.subjects, columns)


class Generator(nn.Module):
    """Images [B, C, H, W] in 0..1 to others that differ by at most `REACH` in each value."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [channels, _WIDTH, _WIDTH, channels]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = (images + REACH * self.layers(images)).clamp(0, 1)
        return changed


def _trained(loaded: LoadedModel, pixels: Tensor, labels: Tensor, context: Context) -> Generator:
    channels = pixels.shape[1]
    maker = Generator(channels).to(context.device)
    judge = nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 3, 2, 1), nn.ReLU(), nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * _WIDTH, 1),
    ).to(context.device)  # fmt: skip
    steps = [torch.optim.Adam(net.parameters(), _RATE, (0.5, 0.9)) for net in (maker, judge)]
    draw, meter = generator(context.seed, _TRAIN), Meter(context, STEPS, "training a generator")
    for step in range(STEPS):
        rows = torch.randint(0, len(pixels), (min(_BATCH, len(pixels)),), generator=draw).to(context.device)
        real, made = pixels[rows], maker(pixels[rows])
        told = torch.cat([judge(real), judge(made.detach())])[:, 0]
        truth = torch.cat([torch.ones(len(rows)), torch.zeros(len(rows))]).to(told)
        _step(steps[1], nn.functional.binary_cross_entropy_with_logits(told, truth))
        answers = loaded.model(pixel_values=_values(loaded, made)).logits
        fooled = nn.functional.softplus(-judge(made)).mean()
        used = (made - real).square().mean().sqrt() / REACH
        _step(steps[0], nn.functional.cross_entropy(answers, labels[rows]) + _FOOLING * fooled - used)
        meter.step(step + 1)
    loaded.model.zero_grad(set_to_none=True)
    return maker


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _values(loaded: LoadedModel, images: Tensor) -> Tensor:
    """Images in 0..1 as the model takes them."""
    assert isinstance(loaded.task, ImageClassification)  # noqa: S101  (generated has looked)
    preparation = loaded.task.preparation
    values = images * 255 * preparation.scale
    if preparation.mean is None or preparation.std is None:
        return values
    mean, std = (
        torch.tensor(part, device=images.device).view(1, -1, 1, 1) for part in (preparation.mean, preparation.std)
    )
    return (values - mean) / std


def _pixels(loaded: LoadedModel, records: Records) -> NDArray[np.uint8]:
    """Images as the model's preparation leaves them, uint8 [N, C, H, W]."""
    encoding: Any = loaded.task.encode(records.take(range(len(records))))
    return np.asarray(encoding.pixels.numpy())


def _augmented_pixels(pixels: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    count, channels, height, width = pixels.shape
    down, right = height // 16, width // 16
    padded = np.pad(pixels, ((0, 0), (0, 0), (down, down), (right, right)), mode="edge")
    top, left = draw.integers(0, 2 * down + 1, count), draw.integers(0, 2 * right + 1, count)
    moved = np.stack(
        [image[:, y : y + height, x : x + width] for image, y, x in zip(padded, top, left, strict=True)]
    ).astype(np.float64)
    moved *= draw.uniform(1 - _LIGHT, 1 + _LIGHT, (count, 1, 1, 1))
    moved += draw.normal(0, _NOISE * 255, (count, channels, height, width))
    return np.asarray(np.clip(np.rint(moved), 0, 255), dtype=np.uint8)


def packed(pixels: NDArray[np.uint8]) -> list[bytes]:
    """PNG bytes of images [N, C, H, W], grey or RGB."""
    found = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def _thinned(text: str, draw: np.random.Generator) -> str:
    """A text without a tenth of its words, at least one of which stays."""
    words = text.split()
    kept = [word for word, left in zip(words, draw.random(len(words)) >= _DROPPED, strict=True) if left]
    return " ".join(kept or words[:1])
