"""Handwritten digits of fictional writers: scikit-learn's digits as PNG, ten images a person, some of them mislabelled.

The wrong labels are what a model can only know by having memorised a record: a person reads the image differently.
Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, as shipped with
scikit-learn (1,797 images of 8 x 8 pixels, values 0 to 16).
"""

import io
from dataclasses import dataclass

import numpy as np

ROWS_EACH = 10
NOISE = 0.15


@dataclass(frozen=True)
class Digit:
    """One image of one writer. `label` is what the record says, `true_label` what was written."""

    record_id: str
    subject_id: str
    image: bytes
    label: int
    true_label: int

    @property
    def mislabelled(self) -> bool:
        """Whether the record's label is wrong."""
        return self.label != self.true_label


def digits(train_people: int, seed: int) -> tuple[list[Digit], list[Digit]]:
    """(training records, held-out records): every image once, the same split and labels for the same seed.

    Labels are wrong with probability 0.15 in both parts, so that held-out records are like the training records in
    everything but having been trained on.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(data.target))
    true = data.target[order]
    wrong = draw.random(len(order)) < NOISE
    labels = np.where(wrong, (true + draw.integers(1, 10, len(order))) % 10, true)
    records = [
        Digit(
            record_id=f"digit-{at:05d}",
            subject_id=f"person-{at // ROWS_EACH:03d}",
            image=png(data.images[index]),
            label=int(labels[at]),
            true_label=int(true[at]),
        )
        for at, index in enumerate(order.tolist())
    ]
    size = train_people * ROWS_EACH
    return records[:size], records[size:]


def png(pixels: np.ndarray) -> bytes:
    """A grey PNG [8, 8] of values 0..16, stretched to 0..255."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels * 16, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
