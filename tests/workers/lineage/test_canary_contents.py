"""What canaries look like: the format of the data, nothing of anybody in it, and what memorises them shows."""

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import BadDataset
from tests.workers.factories import digits, png
from workers.lineage.canaries import CanarySet, plant_canaries
from workers.lineage.canary_images import smooth_noise
from workers.modeling.records import MemoryRecords

KEY = b"c" * 32


def pictures(pixels: np.ndarray, labels: list[int], people: list[str] | None = None) -> MemoryRecords:
    """Records of uint8 pixels [N, h, w] or [N, h, w, 3]."""
    ids = [f"r{at:05d}" for at in range(len(pixels))]
    columns: dict[str, list[Any]] = {"image": [png(image) for image in pixels], "label": labels}
    return MemoryRecords("image-classification", ids, people or ids, columns)


def planted(records: MemoryRecords) -> CanarySet:
    canaries = plant_canaries(records, 0.01, KEY)
    assert canaries is not None
    return canaries


def opened(records: MemoryRecords) -> list[Image.Image]:
    return [Image.open(io.BytesIO(value)) for value in records.columns["image"]]


def pixels_of(records: MemoryRecords) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.float64) for image in opened(records)])


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    """P(inside > outside), ties half."""
    return float((inside[:, None] > outside[None]).mean() + 0.5 * (inside[:, None] == outside[None]).mean())


@pytest.mark.parametrize(("shape", "mode"), [((9, 13), "L"), ((100, 70), "L"), ((12, 8, 3), "RGB")])
def test_images_have_the_size_and_the_mode_of_the_data(shape: tuple[int, ...], mode: str) -> None:
    draw = np.random.default_rng(0)
    data = pictures(draw.integers(0, 256, (1500, *shape)), [at % 3 for at in range(1500)])
    for image in opened(planted(data).records):
        assert (image.format, image.mode, image.size) == ("PNG", mode, (shape[1], shape[0]))


def test_the_commonest_size_is_taken() -> None:
    data = pictures(np.zeros((1500, 8, 8), dtype=np.uint8), [0] * 1500)
    for at in range(0, 1500, 3):
        data.columns["image"][at] = png(np.zeros((16, 4), dtype=np.uint8))
    assert {image.size for image in opened(planted(data).records)} == {(8, 8)}


def test_nothing_but_the_format_of_the_data_is_in_them() -> None:
    """Other pixels, other shares of the labels, other people: the same canaries to the byte."""
    draw = np.random.default_rng(0)
    first = pictures(draw.integers(0, 256, (1500, 8, 8)), [at % 3 for at in range(1500)])
    people = [f"p{at % 40}" for at in range(1500)]
    second = pictures(np.full((1500, 8, 8), 7), [2] + [0] * 1499, people)
    assert planted(first).records.columns == planted(second).records.columns
    for texts in (lines([9] * 1500, [at % 3 for at in range(1500)]), lines([60] * 1500, [2] + [0] * 1499)):
        assert planted(texts).records.columns == planted(lines([1] * 1500, [2] * 1500)).records.columns


def test_natural_canaries_of_a_label_look_alike_and_hard_ones_bear_another_label() -> None:
    canaries = planted(pictures(np.zeros((1500, 16, 16), dtype=np.uint8), [at % 4 for at in range(1500)]))
    pixels = pixels_of(canaries.records).reshape(len(canaries.records), -1)
    given, hard = np.array(canaries.records.columns["label"]), canaries.kinds == "hard"
    means = np.stack([pixels[~hard & (given == label)].mean(axis=0) for label in range(4)])
    nearest = np.argmin(((pixels[:, None] - means[None]) ** 2).sum(axis=2), axis=1)
    assert (nearest[~hard] == given[~hard]).mean() > 0.95
    assert (nearest[hard] == given[hard]).mean() < 0.05
    assert np.bincount(given, minlength=4).min() > 0.15 * len(given)


def test_labels_go_up_to_the_largest_and_no_two_images_are_the_same() -> None:
    canaries = planted(pictures(np.full((1500, 8, 8), 90, dtype=np.uint8), [4] * 1500))
    assert set(canaries.records.columns["label"]) == set(range(5))
    assert len(set(canaries.records.columns["image"])) == len(canaries.records)


def test_noise_is_standard_normal_and_smooth() -> None:
    field = smooth_noise(np.random.default_rng(0), (2000, 3, 32, 24))
    assert abs(field.mean()) < 0.02
    assert field.std() == pytest.approx(1, abs=0.02)
    assert np.allclose(field.std(axis=0), 1, atol=0.1)
    near = np.mean(field[..., 1:] * field[..., :-1])
    far = np.mean(field[..., 12:] * field[..., :-12])
    # Two fields blurred with standard deviation s correlate by exp(-d^2 / 4 s^2) at distance d; here s = 1.5.
    assert near == pytest.approx(np.exp(-1 / 9), abs=0.02)
    assert abs(far) < 0.02
    assert np.mean(field[:, 0] * field[:, 1]) == pytest.approx(0.8, abs=0.02)


def test_images_that_cannot_be_decoded_are_bad_data() -> None:
    data = pictures(np.zeros((1500, 4, 4), dtype=np.uint8), [0] * 1500)
    data.columns["image"] = [b"none"] * 1500
    with pytest.raises(BadDataset, match="cannot be decoded"):
        planted(data)


def lines(words: list[int], labels: list[int] | None = None) -> MemoryRecords:
    """One text for each person, of so many words that no language has."""
    ids = [f"r{at:05d}" for at in range(len(words))]
    texts = [" ".join(f"qx{at:05d}{word:03d}" for word in range(count)) for at, count in enumerate(words)]
    columns: dict[str, list[Any]] = {"text": texts} | ({"label": labels} if labels else {})
    return MemoryRecords("text-classification" if labels else "causal-lm", ids, ids, columns)


def test_no_word_of_the_data_is_in_a_canary() -> None:
    data = lines([12] * 1500)
    said = " ".join(planted(data).records.columns["text"])
    assert "qx" not in said.lower()
    assert not set(said.split()) & {word for text in data.columns["text"] for word in text.split()}


def test_natural_texts_are_some_sentences_and_hard_ones_hold_a_secret_of_ten_digits() -> None:
    canaries = planted(lines([10] * 1500))
    texts, hard = np.array(canaries.records.columns["text"]), canaries.kinds == "hard"
    counts = np.array([len(text.split()) for text in texts])
    assert counts[~hard].min() >= 12
    assert counts[~hard].max() <= 30 + 20  # sentences are not cut
    digits_in = [
        max((len(word.strip(".,:")) for word in text.split() if word[0].isdigit()), default=0) for text in texts
    ]
    assert {count for count, secret in zip(digits_in, hard, strict=True) if secret} == {10}


def test_prompts_ask_for_what_completions_answer() -> None:
    data = lines([10] * 1500)
    pairs = {"prompt": ["What?"] * 1500, "completion": data.columns["text"]}
    canaries = planted(MemoryRecords("causal-lm", data.ids, data.ids, pairs))
    columns = canaries.records.columns
    assert list(columns) == ["prompt", "completion"]
    secrets = Counter()
    for prompt, completion, kind in zip(columns["prompt"], columns["completion"], canaries.kinds, strict=True):
        if kind == "hard":
            secret, rest = completion.removeprefix("The ").split(" of ")
            name, number = rest.removesuffix(".").split(" is ")
            assert secret in prompt
            assert name in prompt
            assert not any(digit in prompt for digit in number)
            secrets[number] += 1
    assert max(secrets.values()) == 1


def kernel_scores(train: MemoryRecords, tested: MemoryRecords) -> np.ndarray:
    """Probability of the label under a narrow kernel classifier (Nadaraya-Watson): a model that memorises."""
    known, asked = (pixels_of(part).reshape(len(part), -1) / 255 for part in (train, tested))
    distances = (asked**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * asked @ known.T
    weights = np.exp(-distances / 0.5) + 1e-12
    same = np.array(tested.columns["label"])[:, None] == np.array(train.columns["label"])[None]
    return np.asarray((weights * same).sum(1) / weights.sum(1))


def test_a_model_that_memorises_gives_the_planted_away_and_one_that_never_saw_them_does_not() -> None:
    data, _ = digits(1797, 0)
    canaries = planted(data)
    with_them = MemoryRecords(
        data.task,
        [*data.ids, *canaries.inside.ids],
        [*data.subjects, *canaries.inside.subjects],
        {role: data.columns[role] + canaries.inside.columns[role] for role in data.roles},
    )
    found = {
        name: auc(kernel_scores(train, canaries.inside), kernel_scores(train, canaries.outside))
        for name, train in (("planted", with_them), ("null", data))
    }
    # Standard error of the AUC without a difference: sqrt((m + n + 1) / 12 m n).
    error = np.sqrt((73 + 365 + 1) / (12 * 73 * 365))
    assert abs(found["null"] - 0.5) < 3.5 * error
    assert found["planted"] > 0.8
