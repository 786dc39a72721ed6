"""Made-up images: a smooth pattern for each class with smooth noise over it, and nothing of the data but its format.

Canaries are trained on again after a deletion, so whatever they took over from a person would outlive it. So all that
goes in are size, mode and the number of classes; the patterns are drawn. A natural canary bears the label of its
pattern, a hard one another label. They look like no record: what counts is that trained and untrained ones are alike.
"""

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import BadDataset
from workers.modeling.records import Records, chunks

SIDE = 64
_GLANCE = 500
_CHUNK = 256
_BUDGET = 1 << 23
"""Numbers in the patterns of all classes together; of very many classes they are coarser."""
_GREY, _PATTERN, _NOISE = 128.0, 40.0, 25.0
_COMMON = 0.8
"""Share of the noise's variance that the channels of a colour image have in common."""


def image_columns(records: Records, hard: NDArray[np.bool_], draw: np.random.Generator) -> dict[str, list[Any]]:
    """`image` (PNG bytes) and `label` of one canary for each entry of `hard` [M]. Raises BadDataset."""
    count = class_count(records)
    mode, size = _commonest(records, np.sort(draw.permutation(len(records))[:_GLANCE]))
    channels = 1 if mode == "L" else 3
    side = min(SIDE, max(1, int((_BUDGET / (channels * count)) ** 0.5)))
    patterns = smooth_noise(draw, (count, channels, min(size[1], side), min(size[0], side)))
    kinds = draw.integers(count, size=len(hard))
    labels = np.where(hard, (kinds + draw.integers(1, max(count, 2), size=len(hard))) % count, kinds)
    images = [
        image
        for part in chunks(len(kinds), _CHUNK)
        for image in _images(patterns[kinds[part.start : part.stop]], mode, size, draw)
    ]
    return {"image": images, "label": labels.tolist()}


def class_count(records: Records) -> int:
    """Largest label + 1: a property of the model line, whoever is forgotten."""
    return 1 + max(int(label) for part in chunks(len(records), 1024) for label in records.take(part)["label"])


def _open(value: Any) -> Image.Image:
    try:
        return Image.open(io.BytesIO(value))
    except (UnidentifiedImageError, OSError, TypeError, ValueError, SyntaxError) as error:
        raise BadDataset("an image cannot be decoded: give PNG or JPEG bytes") from error


def _commonest(records: Records, rows: NDArray[np.int64]) -> tuple[str, tuple[int, int]]:
    """Mode, grey or colour, and size that most of these images have."""
    found: Counter[tuple[str, tuple[int, int]]] = Counter()
    for part in chunks(len(rows), _CHUNK):
        for value in records.take(rows[part.start : part.stop].tolist())["image"]:
            with _open(value) as image:
                grey = image.mode in ("1", "L", "LA", "I", "I;16", "F")
                found["L" if grey else "RGB", image.size] += 1
    return min(found, key=lambda look: (-found[look], look))


def _images(
    patterns: NDArray[np.float64], mode: str, size: tuple[int, int], draw: np.random.Generator
) -> Iterator[bytes]:
    """One PNG for each pattern [B, C, h, w]."""
    for values in _GREY + _PATTERN * patterns + _NOISE * smooth_noise(draw, patterns.shape):
        bands = [Image.fromarray(band.astype(np.float32)) for band in values]
        if bands[0].size != size:
            bands = [band.resize(size, Image.Resampling.BILINEAR) for band in bands]
        pixels = np.stack([np.asarray(band) for band in bands], axis=-1)
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(stream, "PNG")
        yield stream.getvalue()


def smooth_noise(draw: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Gaussian noise [B, C, h, w] of mean 0 and variance 1 in which neighbouring pixels and channels go together.

    White noise under a Gaussian blur with a standard deviation of a sixteenth of the shorter side, done by Fourier
    transform, so that the field closes on itself at the borders.
    """
    height, width = shape[-2:]
    white = np.sqrt(1 - _COMMON) * draw.standard_normal(shape)
    white += np.sqrt(_COMMON) * draw.standard_normal((shape[0], 1, height, width))
    sigma = max(0.75, min(height, width) / 16)
    distance = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None, :] ** 2
    blur = np.exp(-2 * (np.pi * sigma) ** 2 * distance)
    return np.asarray(np.fft.ifft2(np.fft.fft2(white) * blur).real / np.sqrt(np.mean(blur**2)))
