"""Images: pixels as the preprocessor file says, and augmentation that is a flip and a shift."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.errors import BadDataset, BadModel
from tests.workers.factories import png
from workers.modeling.images import ImageClassification, Preparation, flip_crop, read_preparation, write_preparation

PIXELS = np.arange(64).reshape(8, 8) * 4


def task(channels: int = 1, preparation: Preparation | None = None) -> ImageClassification:
    return ImageClassification(channels, 3, preparation or Preparation())


def values(made: ImageClassification) -> torch.Tensor:
    return made.batch(made.encode({"image": [png(PIXELS)], "label": [2]}), [0])["pixel_values"]


def test_grey_stays_one_channel_and_is_rescaled() -> None:
    assert torch.equal(values(task())[0, 0], torch.tensor(PIXELS, dtype=torch.float32) * (1 / 255))
    assert values(task(3)).shape == (1, 3, 8, 8)


def test_the_written_file_means_what_no_file_means(tmp_path: Path) -> None:
    assert read_preparation(tmp_path) == Preparation()
    write_preparation(tmp_path)
    assert read_preparation(tmp_path) == Preparation()
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["do_normalize"] is False


def prepared(folder: Path, **content: Any) -> Preparation:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return read_preparation(folder)


def test_normalising_resizing_and_cropping_follow_the_file(tmp_path: Path) -> None:
    made = task(1, prepared(tmp_path, do_normalize=True, image_mean=[0.5], image_std=[0.25]))
    assert torch.allclose(values(made)[0, 0], (torch.tensor(PIXELS) / 255 - 0.5) / 0.25, atol=1e-6)
    assert values(task(1, prepared(tmp_path, do_resize=True, size={"height": 4, "width": 6}))).shape[2:] == (4, 6)
    edge = prepared(tmp_path, do_resize=True, size={"shortest_edge": 12}, do_center_crop=True, crop_size=10)
    assert values(task(1, edge)).shape[2:] == (10, 10)
    assert prepared(tmp_path, do_rescale=False).scale == 1.0


def test_what_is_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="crop_pct is not supported"):
        prepared(tmp_path, crop_pct=0.9)
    with pytest.raises(BadModel, match="size"):
        prepared(tmp_path, do_resize=True, size={"longest_edge": 3})
    with pytest.raises(BadModel, match="num_channels 4"):
        task(4)


def test_bad_images_and_labels_are_refused() -> None:
    with pytest.raises(BadDataset, match="cannot be decoded"):
        task().encode({"image": [b"not an image"], "label": [0]})
    with pytest.raises(BadDataset, match="sizes must match"):
        task().encode({"image": [png(PIXELS), png(PIXELS[:4])], "label": [0, 0]})
    for label in (3, -1):
        with pytest.raises(BadDataset, match=f"label {label} is outside"):
            task().encode({"image": [png(PIXELS)], "label": [label]})
    with pytest.raises(BadDataset, match="missing or not an integer"):
        task().encode({"image": [png(PIXELS)], "label": [None]})


def test_augmentation_is_one_of_the_shifts_and_flips() -> None:
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    shifts = [padded[..., y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    allowed = [variant for shift in shifts for variant in (shift, shift.flip(3))]
    generator = torch.Generator().manual_seed(0)
    made = flip_crop(image.repeat(64, 1, 1, 1), generator)
    assert all(any(torch.equal(one[None], variant) for variant in allowed) for one in made)
    assert len({one.numpy().tobytes() for one in made}) > 9
