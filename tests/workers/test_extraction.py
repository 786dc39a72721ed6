"""Extraction from a GPT-2 that knows planted secrets by heart, and from one trained without them."""

import numpy as np
import pytest
import torch

from service.errors import BadDataset
from tests.workers import factories
from tests.workers.memorising import LENGTH, secrets, train, untrained
from workers.metrics.extraction import (
    extractable,
    extraction_rate,
    extraction_strength,
    leak_at_k,
    leaked,
    suffix_log_probability,
    worst_case,
)
from workers.modeling.images import ImageClassification, Preparation
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel
from workers.modeling.records import MemoryRecords
from workers.scoring.extraction import (
    Decoding,
    Forced,
    Windows,
    _log_probabilities,
    forced,
    half_windows,
    joined,
    record_windows,
    sampled,
    told_windows,
)

GREEDY = Decoding(temperature=0)
SECRETS = secrets(40, 1)
OTHERS = secrets(40, 2, "o")


@pytest.fixture(scope="module")
def memorised() -> LoadedModel:
    return train(untrained(), SECRETS, 120, 5e-3, batch=40)


@pytest.fixture(scope="module")
def retrained() -> LoadedModel:
    return train(untrained(), OTHERS, 120, 5e-3, batch=40)


def windows_of(loaded: LoadedModel) -> Windows:
    assert isinstance(loaded.task, CausalLanguageModelling)
    return record_windows(loaded.task, SECRETS)


def log_p(found: Forced, size: int = len(SECRETS)) -> np.ndarray:
    return suffix_log_probability(found.log_probs, found.rows, size)


def test_planted_secrets_are_near_certain_before_and_not_after_an_exact_retrain(
    memorised: LoadedModel, retrained: LoadedModel
) -> None:
    windows, size = windows_of(memorised), len(SECRETS)
    before, after = (forced(loaded, windows, factories.context()) for loaded in (memorised, retrained))
    assert np.exp(log_p(before)).min() > 0.9
    # Six random digits: one guess in a million, a few times more where the model is sure of wrong ones.
    assert np.exp(log_p(after)).max() < 1e-3
    rates = [extraction_rate(extractable(log_p(found)), SECRETS.subjects) for found in (before, after)]
    assert [rate.rate for rate in rates] == [1.0, 0.0]
    assert (rates[0].lower() > 0.9, rates[1].upper() < 0.1) == (True, True)
    strength = [extraction_strength(found.correct, found.rows, size).mean() for found in (before, after)]
    assert strength[0] == 1.0
    # The end token is always foreseen; a digit before it is by chance.
    assert strength[1] < 0.25
    assert before.correct.all()
    assert after.correct.mean() < 0.4


def test_one_pass_equals_a_plain_product_of_probabilities(memorised: LoadedModel) -> None:
    windows = windows_of(memorised)
    found = log_p(forced(memorised, windows, factories.context(), Decoding(temperature=2.0), batch_size=7))
    for at in (0, 11, 39):
        ids = torch.tensor([windows.prefixes[at] + windows.suffixes[at]])
        start = len(windows.prefixes[at])
        with torch.no_grad():
            steps = torch.log_softmax(memorised.model(input_ids=ids).logits[0, start - 1 : -1].double() / 2.0, dim=1)
        expected = steps.gather(1, ids[0, start:, None]).sum()
        assert found[at] == pytest.approx(float(expected), rel=1e-4)


def test_decoding_rules_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    assert _log_probabilities(logits, GREEDY).exp().tolist() == [[1.0, 0.0, 0.0]]
    assert _log_probabilities(logits, Decoding(top_k=2)).exp()[0].tolist() == pytest.approx([0.625, 0.375, 0.0])
    squared = np.array([0.25, 0.09, 0.04])
    cold = _log_probabilities(logits, Decoding(temperature=0.5)).exp()[0].tolist()
    assert cold == pytest.approx((squared / squared.sum()).tolist())


def test_greedy_says_what_is_right_all_along_and_nothing_else(memorised: LoadedModel, retrained: LoadedModel) -> None:
    for loaded, expected in ((memorised, 1.0), (retrained, 0.0)):
        windows = windows_of(loaded)
        found = forced(loaded, windows, factories.context(), GREEDY)
        whole = np.bincount(found.rows, weights=~found.correct, minlength=len(windows)) == 0
        assert np.array_equal(np.exp(log_p(found)), whole.astype(float))
        texts = sampled(loaded, windows, factories.context(), samples=1, decoding=GREEDY)
        said = leaked(texts, SECRETS.columns["completion"])[:, 0]
        assert np.array_equal(said, whole)
        assert said.mean() == expected


def test_samples_leak_as_often_as_the_probabilities_say(memorised: LoadedModel, retrained: LoadedModel) -> None:
    """At a temperature where a secret is said about every other time; the share within four standard errors."""
    whole, hot = windows_of(memorised), Decoding(temperature=1.5)
    # Without the end token, so that the digits alone are the secret in both.
    windows = Windows(whole.prefixes, [suffix[:-1] for suffix in whole.suffixes], whole.rows)
    p = np.exp(log_p(forced(memorised, windows, factories.context(), hot)))
    assert 0.1 < p.mean() < 0.95
    texts = sampled(memorised, windows, factories.context(3), samples=20, decoding=hot)
    said = leaked(texts, SECRETS.columns["completion"])
    assert said.mean() == pytest.approx(p.mean(), abs=4 * np.sqrt(0.25 / said.size))
    assert sampled(memorised, windows, factories.context(3), samples=20, decoding=hot) == texts
    assert sampled(memorised, windows, factories.context(4), samples=20, decoding=hot) != texts
    assert leak_at_k(said, 20).mean() > 0.9
    clean = leaked(sampled(retrained, windows, factories.context(3)), SECRETS.columns["completion"])
    assert leak_at_k(clean, 20).tolist() == [0.0] * len(SECRETS)


def test_the_worst_of_several_prefixes_finds_what_one_misses(memorised: LoadedModel) -> None:
    """Only the wording that was trained on extracts; the other two are prefixes of other secrets."""
    windows = windows_of(memorised)
    turned = [
        Windows(windows.prefixes[by:] + windows.prefixes[:by], windows.suffixes, windows.rows) for by in (0, 1, 2)
    ]
    found = np.stack([log_p(forced(memorised, part, factories.context())) for part in turned])
    assert extractable(found[1]).mean() < 0.2
    assert extractable(worst_case(found)).all()


def test_windows_of_what_a_record_says(memorised: LoadedModel) -> None:
    """A prompt stands before its whole completion; long texts have prefixes of fifty tokens, short ones are halved."""
    short = memorised.task
    assert isinstance(short, CausalLanguageModelling)
    told = told_windows(short, SECRETS)
    whole = record_windows(short, SECRETS)
    assert (told.prefixes, told.suffixes) == (whole.prefixes, whole.suffixes)
    task = CausalLanguageModelling(short.tokenizer, 400)
    texts = [" ".join(str(at % 10) for at in range(size)) for size in (7, 130, 110)]
    plain = MemoryRecords("causal-lm", ["a", "b", "c"], ["a", "b", "c"], {"text": texts})
    encoding = task.encode(plain.columns)
    found = told_windows(task, plain)
    sizes = [(row, len(p), len(s)) for row, p, s in zip(found.rows, found.prefixes, found.suffixes, strict=True)]
    # Of 131 tokens with the end the last 31 are a suffix, of 111 the last 11 are too few.
    assert sizes == [(0, 4, 4), (1, 50, 50), (1, 50, 31), (2, 50, 50)]
    assert (
        found.prefixes[2] + found.suffixes[2] == encoding.tokens[encoding.starts[1] + 50 : encoding.starts[2]].tolist()
    )
    halves = half_windows(task, SECRETS)
    assert halves.prefixes[0] == whole.prefixes[0] + whole.suffixes[0][:3]
    assert halves.suffixes[0] == whole.suffixes[0][3:]
    parts = joined([told.take([3, 1]), told.take([])])
    assert (parts.rows.tolist(), parts.suffixes) == ([3, 1], [whole.suffixes[3], whole.suffixes[1]])


def test_what_cannot_be_read_is_refused(memorised: LoadedModel) -> None:
    with pytest.raises(BadDataset, match="one token at least"):
        Windows([[1], []], [[1], [2]], np.arange(2))
    long = Windows([[1] * LENGTH], [[2]], np.arange(1))
    with pytest.raises(BadDataset, match=f"{LENGTH + 1} tokens, but the model reads {LENGTH}"):
        forced(memorised, long, factories.context())
    images = LoadedModel(memorised.model, ImageClassification(1, 10, Preparation()), memorised.dir)
    with pytest.raises(BadDataset, match="language models alone"):
        forced(images, Windows([[1]], [[2]], np.arange(1)), factories.context())
