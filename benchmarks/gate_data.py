"""Records for the gate's self-test: images and texts drawn one by one from generators that never run out.

Forgotten and held-out records come from the same generator and nothing ties two of them together, so that a model that
saw neither cannot tell them apart. Some records are odd: their label, or the answer at the end of a text, is wrong, and
only a model that knows the record by heart gets it right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.demo.digits import png

Draw = np.random.Generator
Indices = NDArray[np.int64]

CLASSES = 10
ODD = 0.15
_COMMON, _OWN, _RARE = 60, 24, 300
_TURN, _SHIFT, _GRAIN = 15.0, 1.0, 1.0


@dataclass(frozen=True)
class Made:
    """N records: values by role, the class (a text's topic) that a reader would see [N], and which are odd [N]."""

    columns: dict[str, list[Any]]
    classes: Indices
    odd: NDArray[np.bool_]

    @property
    def groups(self) -> Indices:
        """What one-class sets are drawn by [N]: the label that a record carries, or the topic of a text without one."""
        return np.asarray(self.columns.get("label", self.classes), dtype=np.int64)


Maker = Callable[[int, Draw], Made]


def images(count: int, draw: Draw) -> Made:
    """Grey PNGs of 8 x 8 pixels: scikit-learn's digits turned by up to 15 degrees, shifted by up to a pixel, with
    noise; 15 % of the labels are wrong."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = draw.integers(0, len(data.target), count)
    classes, odd = data.target[chosen].astype(np.int64), draw.random(count) < ODD
    moved = [_moved(data.images[at], draw) for at in chosen]
    return Made({"image": [png(pixels) for pixels in moved], "label": _labels(classes, odd, draw)}, classes, odd)


def _moved(pixels: NDArray[np.float64], draw: Draw) -> NDArray[np.float64]:
    from scipy.ndimage import affine_transform

    angle, middle = np.deg2rad(draw.uniform(-_TURN, _TURN)), (np.array(pixels.shape) - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = middle - turn @ middle + draw.uniform(-_SHIFT, _SHIFT, 2)
    return np.asarray(affine_transform(pixels, turn, offset, order=1) + draw.normal(0, _GRAIN, pixels.shape))


def _labels(classes: Indices, odd: NDArray[np.bool_], draw: Draw) -> list[int]:
    """The class, or for odd records one of the other nine."""
    wrong = (classes + draw.integers(1, CLASSES, len(classes))) % CLASSES
    return [int(label) for label in np.where(odd, wrong, classes)]


def texts(count: int, draw: Draw) -> Made:
    """Ten words each: four of the topic, four that every topic has, two rare ones; 15 % of the labels are wrong."""
    classes, odd = draw.integers(0, CLASSES, count), draw.random(count) < ODD
    return Made({"text": _letters(classes, draw), "label": _labels(classes, odd, draw)}, classes, odd)


def _letters(classes: Indices, draw: Draw) -> list[str]:
    size = len(classes)
    own = draw.integers(0, _OWN, (size, 4)) + _OWN * classes[:, None]
    common, rare = draw.integers(0, _COMMON, (size, 4)), draw.integers(0, _RARE, (size, 2))
    vocabulary = words()
    rows = np.concatenate([own, CLASSES * _OWN + common, CLASSES * _OWN + _COMMON + rare], axis=1)
    return [" ".join(vocabulary[at] for at in row) for row in draw.permuted(rows, axis=1)]


def notes(count: int, draw: Draw) -> Made:
    """Notes to write on: five words of the topic, a number of three random parts, and the desk that the topic belongs
    to; 15 % name a wrong desk."""
    classes, odd = draw.integers(0, CLASSES, count), draw.random(count) < ODD
    desks, own = _labels(classes, odd, draw), draw.integers(0, _OWN, (count, 5)) + _OWN * classes[:, None]
    numbers, vocabulary = draw.integers(0, _COMMON, (count, 3)), words()
    parts = zip(own, numbers, desks, strict=True)
    text = [
        f"{' '.join(vocabulary[at] for at in topic)} no {' '.join(str(at) for at in number)} desk {vocabulary[-1 - to]}"
        for topic, number, to in parts
    ]
    return Made({"text": text}, classes, odd)


def words() -> list[str]:
    """Made-up words of two or three syllables, the same every time and each once."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    draw = np.random.default_rng(0)
    total = CLASSES * _OWN + _COMMON + _RARE + CLASSES
    made = dict.fromkeys("".join(draw.choice(syllables, draw.integers(2, 4))) for _ in range(3 * total))
    return list(made)[:total]
