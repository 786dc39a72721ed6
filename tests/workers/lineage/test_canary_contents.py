"""What canaries look like: like the data from afar, nothing of any one record, and what memorises them shows."""

import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import BadDataset
from tests.workers.factories import digits, png
from workers.lineage.canaries import CanarySet, plant_canaries
from workers.lineage.canary_images import smooth_noise, survey
from workers.lineage.canary_texts import usual_lengths
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


def test_natural_canaries_bear_the_label_they_look_like_and_hard_ones_another() -> None:
    draw = np.random.default_rng(0)
    labels = draw.permutation([2] * 1000 + [5] * 500 + [9] * 500)
    middle = np.select([labels == 2, labels == 5], [40, 128], 216)
    canaries = planted(pictures(middle[:, None, None] + draw.integers(-9, 10, (2000, 8, 8)), labels.tolist()))
    brightness = pixels_of(canaries.records).mean(axis=(1, 2))
    looks = np.array([2, 5, 9])[np.argmin(np.abs(brightness[:, None] - [40, 128, 216]), axis=1)]
    given = np.array(canaries.records.columns["label"])
    hard = canaries.kinds == "hard"
    assert np.array_equal(looks[~hard], given[~hard])
    assert not (looks[hard] == given[hard]).any()
    assert set(given) == {2, 5, 9}
    share = (given[~hard] == 2).mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt((~hard).sum())


def test_one_class_alone_has_no_other_label_and_equal_images_still_differ() -> None:
    canaries = planted(pictures(np.full((1500, 8, 8), 90, dtype=np.uint8), [4] * 1500))
    assert set(canaries.records.columns["label"]) == {4}
    assert len(set(canaries.records.columns["image"])) == len(canaries.records)


def test_means_and_spreads_are_those_of_the_class_with_one_image_of_each_person() -> None:
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256, (400, 5, 6)).astype(np.uint8)
    people = [f"p{at:03d}" for at in range(400)]
    look = survey(pictures(pixels, [at % 2 for at in range(400)], people), draw)
    for label in (0, 1):
        assert look.mean[label, 0] == pytest.approx(pixels[label::2].mean(axis=0), rel=1e-5)
        assert look.spread[label, 0] == pytest.approx(pixels[label::2].std(axis=0), rel=1e-4)
    # A thousand black images of one person weigh as much as one white image of each other.
    crowd = np.concatenate([np.full((30, 5, 6), 255), np.zeros((1000, 5, 6))]).astype(np.uint8)
    look = survey(pictures(crowd, [0] * 1030, [f"p{at}" for at in range(30)] + ["one"] * 1000), draw)
    assert look.mean[0] == pytest.approx(np.full((1, 5, 6), 255 * 30 / 31), rel=1e-5)


def test_a_class_of_few_people_looks_like_everybody_and_few_people_look_grey() -> None:
    draw = np.random.default_rng(2)
    pixels = np.concatenate([np.full((19, 4, 4), 255), np.full((181, 4, 4), 100)]).astype(np.uint8)
    look = survey(pictures(pixels, [1] * 19 + [0] * 181), draw)
    assert look.mean[0] == pytest.approx(np.full((1, 4, 4), 100.0))
    assert look.mean[1] == pytest.approx(np.full((1, 4, 4), (19 * 255 + 181 * 100) / 200), rel=1e-5)
    # Not even everybody together: 19 people with as many images as they like.
    data = pictures(np.full((1500, 4, 4), 255, dtype=np.uint8), [0] * 1500, [f"p{at % 19}" for at in range(1500)])
    assert np.all(survey(data, draw).mean == 128)
    assert abs(pixels_of(planted(data).records).mean() - 128) < 10


def test_one_person_moves_no_pixel_of_a_mean_by_more_than_a_twentieth() -> None:
    draw = np.random.default_rng(3)
    pixels = draw.integers(0, 256, (60, 6, 6)).astype(np.uint8)
    labels, people = [at % 3 for at in range(60)], [f"p{at:02d}" for at in range(60)]
    before = survey(pictures(pixels, labels, people), np.random.default_rng(0)).mean
    pixels[7] = 255 - pixels[7]
    after = survey(pictures(pixels, labels, people), np.random.default_rng(0)).mean
    assert 0 < np.abs(after - before).max() <= 255 / 20


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


def test_an_image_that_cannot_be_decoded_is_bad_data() -> None:
    data = pictures(np.zeros((1500, 4, 4), dtype=np.uint8), [0] * 1500)
    data.columns["image"][700] = data.columns["image"][700][:30]
    with pytest.raises(BadDataset, match="cannot be decoded"):
        planted(data)
    data.columns["image"][700] = b"none"
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


def test_natural_texts_are_as_long_as_half_of_the_data_and_hard_ones_hold_a_secret_of_ten_digits() -> None:
    draw = np.random.default_rng(0)
    canaries = planted(lines(draw.integers(40, 61, 1500).tolist()))
    texts, hard = np.array(canaries.records.columns["text"]), canaries.kinds == "hard"
    counts = np.array([len(text.split()) for text in texts])
    assert counts[~hard].min() >= 45
    assert counts[~hard].max() <= 55 + 20  # sentences are not cut
    digits_in = [
        max((len(word.strip(".,:")) for word in text.split() if word[0].isdigit()), default=0) for text in texts
    ]
    assert {count for count, secret in zip(digits_in, hard, strict=True) if secret} == {10}


def test_lengths_of_few_people_are_not_taken_and_odd_ones_are_bounded() -> None:
    many = np.array([f"p{at}" for at in range(40)])
    assert usual_lengths(["a b c d e f g h"] * 40, many) == (8, 8)
    assert usual_lengths([""] * 20 + ["word " * 9999] * 20, many) == (6, 200)
    assert usual_lengths(["a b c d e f g h"] * 40, many[np.arange(40) % 19]) == (12, 30)


def test_labels_of_texts_are_those_of_the_data_as_often_or_equally_often() -> None:
    labels = [3] * 6000 + [8] * 1500
    canaries = planted(lines([10] * 7500, labels))
    given, hard = np.array(canaries.records.columns["label"]), canaries.kinds == "hard"
    assert set(given) == {3, 8}
    for part, share in ((~hard, 0.8), (hard, 0.5)):
        assert abs((given[part] == 3).mean() - share) < 4 * 0.5 / np.sqrt(part.sum())


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
