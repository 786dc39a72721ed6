"""Ranks from texts that are read once: those of reading every suffix behind the whole text, for less."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from service.verification.exposure import exposure, null_mean, ranks
from tests.workers.factories import context
from tests.workers.memorising import secrets, train, untrained
from workers.metrics.extraction import suffix_log_probability
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel
from workers.scoring.extraction import BATCH_SIZE, Windows, forced
from workers.scoring.standing import Standings
from workers.scoring.values import alternatives, find_values, value_windows

KNOWN, UNSEEN, OTHERS = secrets(24, 0), secrets(40, 1), 300


@pytest.fixture(scope="module")
def knowing() -> LoadedModel:
    """A model that knows some secrets by heart."""
    return train(untrained(), KNOWN, 150, 5e-3)


def asked(loaded: LoadedModel, records: object, count: int = OTHERS) -> list[Windows]:
    assert isinstance(loaded.task, CausalLanguageModelling)
    draw, found = np.random.default_rng(3), []
    for value in find_values(records):  # type: ignore[arg-type]
        windows = value_windows(loaded.task, value, [value.value, *alternatives(value, {}, count, draw)])
        assert windows is not None
        found.append(windows)
    return found


def plainly(loaded: LoadedModel, windows: Windows) -> int:
    """The rank from every window read as a whole."""
    read = forced(loaded, windows, context())
    losses = -suffix_log_probability(read.log_probs, read.rows, len(windows))
    return int(ranks(losses[:1], losses[1:])[0])


def test_ranks_are_those_of_whole_windows_and_take_fewer_passes(knowing: LoadedModel) -> None:
    for records, cheap in ((KNOWN, True), (UNSEEN, False)):
        windows, standings = asked(knowing, records), Standings(knowing, context())
        assert [standings.rank(one) for one in windows] == [plainly(knowing, one) for one in windows]
        whole = sum(-(-len(one) // BATCH_SIZE) for one in windows)
        assert standings.forward_passes < (0.75 if cheap else 1.0) * whole


def test_what_is_known_stands_first_and_what_is_not_stands_anywhere(knowing: LoadedModel) -> None:
    known, unseen = (Standings(knowing, context()).exposures(asked(knowing, one)) for one in (KNOWN, UNSEEN))
    assert np.mean(known) > 0.9 * np.log2(OTHERS)
    assert abs(np.mean(unseen) - null_mean(OTHERS)) < 3 * 1.44 / np.sqrt(len(unseen))


@pytest.mark.parametrize("seed", range(3))
def test_suffixes_of_any_length_and_texts_of_any_beginning(seed: int) -> None:
    loaded, draw = untrained(seed), np.random.default_rng(seed)
    suffixes = [draw.integers(5, 300, int(size)).tolist() for size in draw.integers(1, 6, 200)]
    same = Windows([[7, 8, 9]] * 200, suffixes, np.zeros(200, dtype=np.int64))
    mixed = Windows([[7, 8, 9]] * 150 + [[7, 8]] * 50, suffixes, np.zeros(200, dtype=np.int64))
    for windows in (same, mixed):
        assert Standings(loaded, context()).rank(windows) == plainly(loaded, windows)


def test_equally_likely_others_are_ahead() -> None:
    loaded = untrained()
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.zero_()
    windows = Windows([[7, 8]] * 90, [[at, at + 1] for at in range(10, 100)], np.zeros(90, dtype=np.int64))
    assert Standings(loaded, context()).rank(windows) == 90
    assert exposure(np.array([90]), 89)[0] < 0


def test_a_model_that_keeps_nothing_reads_whole_windows() -> None:
    task = untrained().task
    assert isinstance(task, CausalLanguageModelling)
    torch.manual_seed(0)
    config = AutoConfig.for_model("openai-gpt", vocab_size=len(task.tokenizer), n_embd=32, n_layer=1, n_head=2)
    loaded = LoadedModel(AutoModelForCausalLM.from_config(config).eval(), task, Path())
    windows, standings = asked(loaded, UNSEEN)[:3], Standings(loaded, context())
    assert [standings.rank(one) for one in windows] == [plainly(loaded, one) for one in windows]
    assert standings.forward_passes >= sum(-(-len(one) // BATCH_SIZE) for one in windows)
