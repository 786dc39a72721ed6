"""Image classification: PNG or JPEG bytes to pixels, as the model directory's preprocessor_config.json says."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from transformers import PreTrainedModel

from service.errors import BadDataset, BadModel
from workers.modeling.directories import canonical_json
from workers.modeling.jsonfiles import read_object
from workers.modeling.records import chunks
from workers.modeling.tasks import Batch, ClassifierOutputs, Predictions, classifier_losses, label_tensor

_BLOCK = 256
PREPROCESSOR_FILE = "preprocessor_config.json"
_SUPPORTED = {
    "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_resize", "size", "resample",
    "do_center_crop", "crop_size", "do_convert_rgb", "image_processor_type", "feature_extractor_type",
    "processor_class", "data_format", "input_data_format", "num_channels", "do_convert_grayscale",
}  # fmt: skip


@dataclass(frozen=True)
class Preparation:
    """How stored pixels become model inputs. `size` is (height, width), `shortest_edge` scales the shorter side."""

    scale: float = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    crop: tuple[int, int] | None = None
    resample: int = int(Image.Resampling.BILINEAR)

    def apply(self, image: Image.Image) -> Image.Image:
        """Resize and crop; pixel values are left to the batch."""
        if self.shortest_edge is not None:
            factor = self.shortest_edge / min(image.size)
            width, height = (max(self.shortest_edge, round(side * factor)) for side in image.size)
            image = image.resize((width, height), Image.Resampling(self.resample))
        elif self.size is not None and image.size != self.size[::-1]:
            image = image.resize(self.size[::-1], Image.Resampling(self.resample))
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return image


def write_preparation(directory: Path) -> None:
    """The preprocessor file of a model trained here: values rescaled by 1/255, nothing else."""
    content = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_resize": False,
    }
    (directory / PREPROCESSOR_FILE).write_bytes(canonical_json(content))


def read_preparation(directory: Path) -> Preparation:
    """The preparation a model directory asks for; without a file, rescaling by 1/255.

    Raises BadModel for a file that cannot be read and for a step that is not supported.
    """
    path = directory / PREPROCESSOR_FILE
    if not path.exists():
        return Preparation()
    content = read_object(path)
    active = {key for key in content if key not in _SUPPORTED and content[key] not in (None, False)}
    if active:
        raise BadModel(f"{path}: {min(active)} is not supported: resize, centre crop, rescale and normalise are")
    normalise = content.get("do_normalize", False)
    resample = content.get("resample")
    resize = content.get("size") if content.get("do_resize") else None
    size, edge = _size(resize, path) if resize is not None else (None, None)
    crop = _size(content.get("crop_size"), path)[0] if content.get("do_center_crop") else None
    return Preparation(
        scale=float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 1.0,
        mean=tuple(content.get("image_mean") or (0.5,)) if normalise else None,
        std=tuple(content.get("image_std") or (0.5,)) if normalise else None,
        size=size,
        shortest_edge=edge,
        crop=crop,
        resample=int(Image.Resampling.BILINEAR if resample is None else resample),
    )


def _size(value: Any, path: Path) -> tuple[tuple[int, int] | None, int | None]:
    if isinstance(value, int):
        return (value, value), None
    if isinstance(value, dict) and {"height", "width"} <= set(value):
        return (int(value["height"]), int(value["width"])), None
    if isinstance(value, dict) and "shortest_edge" in value:
        return None, int(value["shortest_edge"])
    raise BadModel(f"{path}: size {value!r} is not supported: give height and width, or shortest_edge")


@dataclass(frozen=True)
class ImageEncoding:
    """Pixels as stored, uint8 [N, C, H, W], and labels int64 [N]."""

    pixels: Tensor
    labels: Tensor
    lengths: None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.labels.nbytes

    def fingerprints(self) -> NDArray[np.uint64]:
        flat = self.pixels.reshape(len(self), -1).numpy()
        known = [_hashed(flat[rows.start : rows.stop]) for rows in chunks(len(self), _BLOCK)]
        return np.concatenate([np.zeros(0, dtype=np.uint64), *known]) + self.labels.numpy().astype(np.uint64)


def _hashed(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A multilinear hash of each row, eight pixels a word."""
    words = np.pad(pixels, ((0, 0), (0, -pixels.shape[1] % 8))).view(np.uint64)
    factors = np.random.default_rng(0).integers(0, 1 << 64, words.shape[1], dtype=np.uint64) | np.uint64(1)
    hashed: NDArray[np.uint64] = (words * factors).sum(axis=1, dtype=np.uint64)
    return hashed


class ImageClassification:
    """Cross-entropy on image labels. `channels` is 1 (grey) or 3 (RGB)."""

    name = "image-classification"

    def __init__(self, channels: int, num_labels: int, preparation: Preparation) -> None:
        if channels not in (1, 3):
            raise BadModel(f"config.json: num_channels {channels} is not supported: use 1 (grey) or 3 (RGB)")
        self.channels = channels
        self.num_labels = num_labels
        self.preparation = preparation
        self._size: tuple[int, int] | None = None

    def encode(self, columns: dict[str, list[Any]]) -> ImageEncoding:
        """Decode images; BadDataset for one that cannot be decoded and for sizes that differ."""
        images = [self._decode(value) for value in columns["image"]]
        pixels = np.stack(images) if images else np.zeros((0, self.channels, 1, 1), dtype=np.uint8)
        return ImageEncoding(torch.from_numpy(pixels), label_tensor(columns["label"], self.num_labels))

    def join(self, parts: list[ImageEncoding]) -> ImageEncoding:
        """One encoding from consecutive parts."""
        return ImageEncoding(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))

    def batch(self, encoding: ImageEncoding, indices: list[int]) -> Batch:
        """`pixel_values` float32 [B, C, H, W] and `labels` [B]."""
        rows = torch.tensor(indices, dtype=torch.int64)
        return {"pixel_values": self._values(encoding.pixels[rows]), "labels": encoding.labels[rows]}

    def losses(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Cross-entropy of each record [B], nats."""
        return classifier_losses(model(pixel_values=batch["pixel_values"]).logits, batch["labels"])

    def watched(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Predictions]:
        """Losses [B] and the prediction of each record."""
        logits = model(pixel_values=batch["pixel_values"]).logits
        return classifier_losses(logits, batch["labels"]), Predictions(logits.detach(), batch["labels"])

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """The mean over records."""
        del batch
        return losses.mean()

    def outputs(self, model: PreTrainedModel, batch: Batch) -> ClassifierOutputs:
        """Logits and labels."""
        return ClassifierOutputs(model(pixel_values=batch["pixel_values"]).logits.float(), batch["labels"])

    def _decode(self, value: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            with Image.open(io.BytesIO(value)) as opened:
                image = self.preparation.apply(opened.convert("L" if self.channels == 1 else "RGB"))
        except (UnidentifiedImageError, OSError, TypeError, ValueError, SyntaxError) as error:
            raise BadDataset("an image cannot be decoded: give PNG or JPEG bytes") from error
        size = (image.height, image.width)
        if self._size is None:
            self._size = size
        elif size != self._size:
            raise BadDataset(f"images differ in size ({self._size} and {size}): sizes must match")
        pixels = np.array(image, dtype=np.uint8)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)

    def _values(self, pixels: Tensor) -> Tensor:
        values = pixels.to(torch.float32) * self.preparation.scale
        if self.preparation.mean is not None and self.preparation.std is not None:
            shape = (1, -1, 1, 1)
            values = (values - torch.tensor(self.preparation.mean).view(shape)) / torch.tensor(
                self.preparation.std
            ).view(shape)
        return values


def flip_crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random horizontal flips and random crops of [B, C, H, W] after zero padding by an eighth of the side.

    The augmentation of He et al. 2016 (CIFAR-10: 4 pixels of 32), drawn per record from `generator`.
    """
    count, _, height, width = pixels.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    padded = torch.nn.functional.pad(pixels, (pad_x, pad_x, pad_y, pad_y))
    top = torch.randint(0, 2 * pad_y + 1, (count,), generator=generator)
    left = torch.randint(0, 2 * pad_x + 1, (count,), generator=generator)
    flip = torch.rand(count, generator=generator) < 0.5
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    records = torch.arange(count)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[records, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).contiguous()
