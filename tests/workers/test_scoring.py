"""Score tables against their closed forms, in the order of the records, by one pass."""

import zlib

import numpy as np
import pytest
import torch

from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.language import CausalLanguageModelling, _told
from workers.modeling.loading import load_model
from workers.modeling.tasks import ClassifierOutputs, TokenOutputs
from workers.scoring.score import _classifier, _lowest_mean, _tokens, score

CPU = torch.device("cpu")


def test_classifier_scores_of_known_logits() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])) + 3.0
    scores = _classifier(ClassifierOutputs(logits, torch.tensor([0, 1])))
    p = np.array([0.7, 0.2, 0.1])
    assert scores["loss"] == pytest.approx([-np.log(0.7), -np.log(0.2)])
    assert scores["confidence"] == pytest.approx([np.log(0.7 / 0.3), np.log(0.2 / 0.8)], abs=1e-6)
    assert scores["entropy"] == pytest.approx([-(p * np.log(p)).sum()] * 2)
    first = -0.3 * np.log(0.7) - 0.2 * np.log(0.8) - 0.1 * np.log(0.9)
    second = -0.8 * np.log(0.2) - 0.7 * np.log(0.3) - 0.1 * np.log(0.9)
    assert scores["modified_entropy"] == pytest.approx([first, second], abs=1e-6)
    assert scores["correct"].tolist() == [True, False]
    assert scores["predicted"].tolist() == [0, 0]


def test_certain_logits_stay_finite() -> None:
    scores = _classifier(ClassifierOutputs(torch.tensor([[80.0, -80.0, 0.0]]), torch.tensor([0])))
    assert all(np.isfinite(np.asarray(value, dtype=float)).all() for value in scores.values())


def test_token_scores_of_known_probabilities() -> None:
    outputs = TokenOutputs(
        log_probs=torch.tensor([-1.0, -2.0, -3.0, -0.5]),
        mean=torch.tensor([-2.0, -1.0, -1.0, -0.5]),
        variance=torch.tensor([4.0, 0.25, 1.0, 0.0]),
        correct=torch.tensor([True, False, False, True]),
        rows=torch.tensor([0, 0, 0, 1]),
        utf8_bytes=torch.tensor([12, 4]),
        zlib_bytes=torch.tensor([20, 12]),
    )
    scores = _tokens(outputs)
    assert scores["loss"] == pytest.approx([2.0, 0.5])
    assert scores["nll"] == pytest.approx([6.0, 0.5])
    assert scores["tokens"].tolist() == [3, 1]
    assert (scores["utf8_bytes"].tolist(), scores["zlib_bytes"].tolist()) == ([12, 4], [20, 12])
    assert scores["min_k"] == pytest.approx([-3.0, -0.5])
    # z is 0.5, -2 and -2 in the first record, and 0 over the floor of the variance in the second.
    assert scores["min_k_plus_plus"] == pytest.approx([-2.0, 0.0])
    assert scores["token_accuracy"] == pytest.approx([1 / 3, 1.0])


def test_the_lowest_fifth_equals_a_loop_over_the_records() -> None:
    random = np.random.default_rng(0)
    tokens = np.array([0, 1, 3, 7, 12, 13, 0, 40])
    rows = np.repeat(np.arange(len(tokens)), tokens)
    values = random.normal(size=len(rows))
    values[:4] = values[0]
    expected = np.zeros(len(tokens))
    for row, count in enumerate(tokens):
        if count:
            expected[row] = np.sort(values[rows == row])[: max(1, round(0.2 * count))].mean()
    assert _lowest_mean(values, rows, tokens) == pytest.approx(expected)


def test_statistics_over_the_vocabulary_equal_their_definition(chat_line: Line) -> None:
    """Token by token in double precision, from the logits at every position."""
    loaded = load_model(chat_line.base, "causal-lm", CPU)
    assert isinstance(loaded.task, CausalLanguageModelling)
    part = chat_line.train.subset(range(6))
    batch = loaded.task.batch(loaded.task.encode(part.columns), list(range(6)))
    with torch.no_grad():
        outputs = loaded.task.outputs(loaded.model, batch)
        logits, targets, _ = loaded.task.predictions(loaded.model, batch)
    for at in range(len(targets)):
        log_p = torch.log_softmax(logits[at].double(), dim=0)
        mean = (log_p.exp() * log_p).sum()
        variance = (log_p.exp() * (log_p - mean) ** 2).sum()
        assert float(outputs.mean[at]) == pytest.approx(float(mean), rel=1e-4, abs=1e-5)
        assert float(outputs.variance[at]) == pytest.approx(float(variance), rel=1e-4, abs=1e-5)
        assert float(outputs.log_probs[at]) == pytest.approx(float(log_p[targets[at]]), rel=1e-4, abs=1e-5)
        assert bool(outputs.correct[at]) == bool(logits[at].argmax() == targets[at])


def test_tokens_that_a_model_rules_out_and_flat_models_leave_numbers() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf], [1.0, 1.0, 1.0, 1.0]])
    own, mean, variance, correct = _told(logits, torch.tensor([1, 0]))
    assert own.tolist() == pytest.approx([-np.log(2), -np.log(4)])
    assert mean.tolist() == pytest.approx([-np.log(2), -np.log(4)])
    assert variance.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    # Of equally likely tokens the first counts, not each of them: a flat model is right about nothing.
    assert correct.tolist() == [False, True]


def test_the_compressed_length_is_that_of_the_scored_text(chat_line: Line) -> None:
    loaded = load_model(chat_line.base, "causal-lm", CPU)
    part = chat_line.train.subset(range(10))
    table = score(loaded, part, factories.context(), 4).table
    expected = [len(zlib.compress(f" {text}".encode())) for text in part.columns["completion"]]
    assert table["zlib_bytes"].to_pylist() == expected


def test_tables_follow_the_records_whatever_the_batches(digits_line: Line, chat_line: Line) -> None:
    for line in (digits_line, chat_line):
        loaded = load_model(line.base, line.train.task, CPU)
        part = line.train.subset([5, 3, 40, 1])
        whole = score(loaded, part, factories.context(), 4)
        single = score(loaded, part, factories.context(), 1)
        assert (whole.forward_passes, single.forward_passes) == (1, 4)
        assert whole.table["record_id"].to_pylist() == part.ids.tolist()
        assert whole.table["subject_id"].to_pylist() == part.subjects.tolist()
        assert np.allclose(whole.table["loss"].to_numpy(), single.table["loss"].to_numpy(), atol=1e-5)


def test_nats_per_byte_compare_across_tokenizers(chat_line: Line) -> None:
    """Another tokenizer covers the same bytes with other tokens."""
    loaded = load_model(chat_line.base, "causal-lm", CPU)
    part = chat_line.train.subset(range(10))
    table = score(loaded, part, factories.context(), 8).table
    expected = [len(f" {text}".encode()) for text in part.columns["completion"]]
    assert table["utf8_bytes"].to_pylist() == expected
    assert np.allclose(table["nll"].to_numpy(), table["loss"].to_numpy() * table["tokens"].to_numpy(), rtol=1e-5)


def test_members_of_a_memorising_model_lose_less(chat_line: Line) -> None:
    loaded = load_model(chat_line.base, "causal-lm", CPU)
    member, other = (
        score(loaded, part, factories.context(), 64).table["loss"].to_numpy()
        for part in (chat_line.train, chat_line.certification)
    )
    assert np.mean(member[:, None] < other[None, :]) > 0.75


@pytest.mark.parametrize("column", ["min_k", "min_k_plus_plus"])
def test_members_of_a_memorising_model_have_likelier_lowest_tokens(chat_line: Line, column: str) -> None:
    loaded = load_model(chat_line.base, "causal-lm", CPU)
    member, other = (
        score(loaded, part, factories.context(), 64).table[column].to_numpy()
        for part in (chat_line.train, chat_line.certification)
    )
    assert np.mean(member[:, None] > other[None, :]) > 0.7
