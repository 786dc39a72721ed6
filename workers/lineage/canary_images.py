"""Made-up images that look like a data set from afar: class means with smooth noise, and nothing of any one record.

What goes in are means and spreads of pixels over at least FEWEST_SUBJECTS people, each with one image a class, at a
side of at most SIDE pixels. A class with fewer people takes those of all classes together; data of fewer people gives
grey images. A natural canary bears the label of the class whose means it has, a hard one another label.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import BadDataset
from workers.modeling.records import Records, chunks

FEWEST_SUBJECTS = 20
SIDE = 64
_SAMPLE = 50_000
_GLANCE = 500
_CHUNK = 256
_BUDGET = 1 << 23
"""Pixels of all classes together that are summed up; of very many classes images are looked at more coarsely."""
_GREY, _GREY_SPREAD, _LEAST_SPREAD = 128.0, 40.0, 4.0
_COMMON = 0.8
"""Share of the noise's variance that the channels of a colour image have in common."""


@dataclass(frozen=True)
class Look:
    """How K classes look: `labels` [K], their `shares` [K], `mean` and `spread` float32 [K, C, h, w] in grey levels.

    `size` is (width, height) and `mode` "L" or "RGB" of the images to make; h and w are at most SIDE.
    """

    labels: NDArray[np.int64]
    shares: NDArray[np.float64]
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    size: tuple[int, int]
    mode: str


def image_columns(records: Records, hard: NDArray[np.bool_], draw: np.random.Generator) -> dict[str, list[Any]]:
    """`image` (PNG bytes) and `label` of one canary for each entry of `hard` [M]. Raises BadDataset."""
    look = survey(records, draw)
    kinds = draw.choice(len(look.labels), size=len(hard), p=look.shares)
    labels = np.where(hard, _others(kinds, len(look.labels), draw), kinds)
    images = [
        image for part in chunks(len(kinds), _CHUNK) for image in _images(look, kinds[part.start : part.stop], draw)
    ]
    return {"image": images, "label": look.labels[labels].tolist()}


def survey(records: Records, draw: np.random.Generator) -> Look:
    """Look at the data, of more than 50,000 records at as many of them. Raises BadDataset."""
    rows = np.sort(draw.permutation(len(records))[:_SAMPLE])
    labels = [label for part in chunks(len(rows), 1024) for label in _taken(records, rows, part)["label"]]
    known, classes, counts = np.unique(np.array(labels, dtype=np.int64), return_inverse=True, return_counts=True)
    _, people = np.unique(np.asarray(records.subjects)[rows], return_inverse=True)
    # One image of a person for each class, and for all classes together: nobody counts twice in a mean.
    once = np.unique(np.stack([classes, people]), axis=1, return_index=True)[1]
    first = np.isin(once, once[np.unique(people[once], return_index=True)[1]])
    mode, size = _commonest(records, rows[np.sort(draw.permutation(once)[:_GLANCE])])
    channels = 1 if mode == "L" else 3
    side = min(SIDE, max(1, int((_BUDGET / (channels * len(known))) ** 0.5)))
    sums = _Sums(len(known), (channels, min(size[1], side), min(size[0], side)))
    pixels = _decoded(records, rows[once], mode, sums.shape)
    for kind, one_of_a_person, image in zip(classes[once].tolist(), first.tolist(), pixels, strict=True):
        sums.add(kind, one_of_a_person, image)
    mean, spread = sums.moments()
    return Look(known, counts / counts.sum(), mean, spread, size, mode)


class _Sums:
    """Numbers of images, sums and sums of squares [K + 1, C, h, w] of each class, and of one image of each person."""

    def __init__(self, classes: int, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._counts = np.zeros(classes + 1)
        self._sums, self._squares = np.zeros((classes + 1, *shape)), np.zeros((classes + 1, *shape))

    def add(self, kind: int, one_of_a_person: bool, image: NDArray[np.uint8]) -> None:
        values = image.astype(np.float64)
        for at in (kind, -1) if one_of_a_person else (kind,):
            self._counts[at] += 1
            self._sums[at] += values
            self._squares[at] += values**2

    def moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of each class; where it has too few people those of everybody, or plain grey."""
        classes = np.arange(len(self._counts) - 1)
        source = np.where(self._counts[:-1] < FEWEST_SUBJECTS, -1, classes)
        counts = self._counts[source][:, None, None, None]
        mean = self._sums[source] / counts
        spread = np.sqrt(np.maximum(self._squares[source] / counts - mean**2, 0))
        if self._counts[-1] < FEWEST_SUBJECTS:
            mean[:], spread[:] = _GREY, _GREY_SPREAD
        # Where all images of a class are the same its canaries would be so too.
        spread += _LEAST_SPREAD * (spread.mean(axis=(1, 2, 3), keepdims=True) < _LEAST_SPREAD)
        return mean.astype(np.float32), spread.astype(np.float32)


def _others(kinds: NDArray[np.int64], count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Another class for each, all equally likely; the same where there is only one."""
    return (kinds + draw.integers(1, max(count, 2), size=len(kinds))) % count


def _taken(records: Records, rows: NDArray[np.int64], part: range) -> dict[str, list[Any]]:
    return records.take(rows[part.start : part.stop].tolist())


def _open(value: Any) -> Image.Image:
    try:
        return Image.open(io.BytesIO(value))
    except (UnidentifiedImageError, OSError, TypeError, ValueError, SyntaxError) as error:
        raise BadDataset("an image cannot be decoded: give PNG or JPEG bytes") from error


def _commonest(records: Records, rows: NDArray[np.int64]) -> tuple[str, tuple[int, int]]:
    """Mode, grey or colour, and size that most of these images have."""
    found: Counter[tuple[str, tuple[int, int]]] = Counter()
    for part in chunks(len(rows), _CHUNK):
        for value in _taken(records, rows, part)["image"]:
            with _open(value) as image:
                grey = image.mode in ("1", "L", "LA", "I", "I;16", "F")
                found["L" if grey else "RGB", image.size] += 1
    return min(found, key=lambda look: (-found[look], look))


def _decoded(
    records: Records, rows: NDArray[np.int64], mode: str, shape: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Pixels [C, h, w] of each image in one mode and size."""
    size = (shape[2], shape[1])
    for part in chunks(len(rows), _CHUNK):
        for value in _taken(records, rows, part)["image"]:
            with _open(value) as opened:
                try:
                    image = opened.convert(mode)
                except (OSError, ValueError, SyntaxError) as error:
                    raise BadDataset("an image cannot be decoded: give PNG or JPEG bytes") from error
            if image.size != size:
                image = image.resize(size, Image.Resampling.BOX)
            pixels = np.asarray(image, dtype=np.uint8)
            yield pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _images(look: Look, kinds: NDArray[np.int64], draw: np.random.Generator) -> Iterator[bytes]:
    noise = smooth_noise(draw, (len(kinds), *look.mean.shape[1:]))
    for values in look.mean[kinds] + look.spread[kinds] * noise:
        bands = [Image.fromarray(band.astype(np.float32)) for band in values]
        if bands[0].size != look.size:
            bands = [band.resize(look.size, Image.Resampling.BILINEAR) for band in bands]
        pixels = np.stack([np.asarray(band) for band in bands], axis=-1)
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if look.mode == "L" else pixels).save(stream, "PNG")
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
