"""Extraction and people's numbers on made-up support conversations: a model that knows them fails, retrains do not."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from service.verification.policy import Policy
from service.verification.schema import Check, Evaluation
from service.verification.verdict import disagreements
from tests.workers.factories import MemoryRecords, context
from tests.workers.memorising import copied, train
from workers.demo.conversations import Customer, conversation, customers
from workers.modeling.language import CausalLanguageModelling
from workers.modeling.loading import LoadedModel
from workers.modeling.tokenizers import train_tokenizer
from workers.planning.assessment import Facts, assess
from workers.planning.extraction_tables import VALUE_SHARE, Asked, drawn_people, said
from workers.scoring.score import score

LENGTH, WIDTH, STEPS, RATE = 40, 48, 120, 8e-3
PEOPLE, GONE, STRANGERS = 24, 10, 40
CROWD = customers(PEOPLE + STRANGERS, 3)


def records_of(people: list[Customer]) -> MemoryRecords:
    rows = [(who.subject_id, at, *turn) for who in people for at, turn in enumerate(conversation(who))]
    columns = {"prompt": [row[2] for row in rows], "completion": [row[3] for row in rows]}
    ids = [f"{subject}-{at}" for subject, at, _, _ in rows]
    return MemoryRecords("causal-lm", ids, [row[0] for row in rows], columns)


FORGET, KEPT, HELD_OUT = (records_of(part) for part in (CROWD[:GONE], CROWD[GONE:PEOPLE], CROWD[PEOPLE:]))
ASKED = Asked(FORGET, HELD_OUT, KEPT, frozenset())


def trained(people: list[Customer], seed: int) -> LoadedModel:
    """A small GPT-2 that learns these people's conversations by heart."""
    task = CausalLanguageModelling(train_tokenizer(records_of(CROWD), 500, LENGTH), LENGTH)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(task.tokenizer), n_embd=WIDTH, n_layer=2, n_head=4, n_positions=LENGTH, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    loaded = LoadedModel(AutoModelForCausalLM.from_config(config).eval(), task, __file__)  # type: ignore[arg-type]
    return train(loaded, records_of(people), STEPS, RATE, batch=32, seed=seed)


def table_of(loaded: LoadedModel, asked: Asked = ASKED) -> pa.Table:
    parts = []
    for part, records in (("forget", FORGET), ("retain", KEPT), ("held_out", HELD_OUT)):
        scored = score(loaded, records, context()).table
        parts.append(scored.append_column("set", pa.array([part] * len(records), pa.string())))
    return said(loaded, asked, context()).onto(pa.concat_tables(parts))


@dataclass(frozen=True)
class Models:
    """The model that knows everybody, and models trained without twelve of them, with their tables."""

    loaded: LoadedModel
    original: pa.Table
    retrained: list[pa.Table]


@pytest.fixture(scope="module")
def models() -> Models:
    loaded = trained(CROWD[:PEOPLE], 0)
    again = [table_of(trained(CROWD[GONE:PEOPLE], seed)) for seed in (1, 2, 3)]
    return Models(loaded, table_of(loaded), again)


def judged(original: pa.Table, candidate: pa.Table, *retrained: pa.Table) -> Evaluation:
    tables = {"original": original, "candidate": candidate}
    tables |= {f"retrained-{at}": table for at, table in enumerate(retrained, 1)}
    found = assess(tables, "causal-lm", Policy(), facts=Facts())
    assert disagreements(found, Policy().verification) == []
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    return found


def check_of(found: Evaluation, name: str) -> Check:
    check = found.check(name)
    assert check is not None
    return check


@pytest.mark.parametrize("references", [0, 2])
def test_the_untouched_model_fails(models: Models, references: int) -> None:
    found = judged(models.original, models.original, *models.retrained[:references])
    for name in ("extraction", "extraction_strength", "value_exposure"):
        check = check_of(found, name)
        assert (check.verdict, check.role) == ("fail", "gate"), (name, check)
        assert (check.references or 0) == references
    assert (check_of(found, "extraction").estimate or 0) > 0.5
    assert found.verdict == "fail"


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("references", [0, 2])
def test_no_retrain_fails_and_the_texts_count_for_it(models: Models, at: int, references: int) -> None:
    others = [table for number, table in enumerate(models.retrained) if number != at][:references]
    found = judged(models.original, models.retrained[at], *others)
    for name in ("extraction", "extraction_strength"):
        check = check_of(found, name)
        assert (check.verdict, check.role) == ("pass", "gate"), (name, check)
    assert check_of(found, "value_exposure").verdict in ("pass", "inconclusive")
    excess = check_of(found, "extraction_excess")
    assert (excess.p_value or 0) > 0.01
    assert found.metrics["extraction_do_nothing"] > 0.5
    assert found.metrics["extraction"] < 0.1
    if references:
        assert len(found.metrics["extraction_retrained"]) == references


def test_a_model_that_forgot_half_of_the_people_still_fails(models: Models) -> None:
    """Forgetting some of them hides the others from no attack on texts that come out word by word."""
    damaged = copied(models.loaded)
    half = records_of(CROWD[: GONE // 2])
    train(
        damaged,
        half,
        25,
        2e-3,
        lambda losses: -0.5 * losses.clamp(max=4.0).mean(),
        batch=32,
        keep=records_of(CROWD[GONE // 2 : PEOPLE]),
    )
    found = judged(models.original, table_of(damaged))
    check = check_of(found, "extraction")
    assert 0.2 < (check.estimate or 0) < (found.metrics["extraction_do_nothing"] or 0)
    assert check.verdict == "fail"


def test_what_others_say_too_and_who_stays_does_not_count(models: Models) -> None:
    """Stock phrases ("You bought a lamp.") are in retained records word by word; people who stay are not asked for."""
    columns = models.original.filter(pa.compute.equal(models.original["set"], "forget"))
    counted = [value is not None for value in columns["extraction_log_p"].to_pylist()]
    retained = set(KEPT.columns["completion"])
    shared = [text in retained for text in FORGET.columns["completion"]]
    assert any(shared)
    assert not any(one and other for one, other in zip(counted, shared, strict=True))
    assert np.mean(counted) > 0.7
    staying = str(FORGET.subjects[0])
    less = said(models.loaded, Asked(FORGET, HELD_OUT, KEPT, frozenset([staying])), context())
    asked = {name.rpartition("-")[0] for part, name in less.suffixes if part == "forget"}
    assert asked == set(FORGET.subjects) - {staying}
    assert not [name for part, name in less.values if name.startswith(staying)]


def test_the_easiest_suffix_is_the_record_s_loss_where_it_is_one_suffix(models: Models) -> None:
    table = models.original.filter(pa.compute.is_valid(models.original["extraction_log_p"]))
    assert table["extraction_log_p"].to_numpy() == pytest.approx(-table["nll"].to_numpy(), rel=1e-4, abs=1e-4)
    assert table["extraction_tokens"].to_numpy().tolist() == table["tokens"].to_numpy().tolist()


def test_a_sample_of_people_is_whole_and_bounded() -> None:
    drawn = drawn_people(HELD_OUT, 100, 0)
    assert 80 < len(drawn) <= 100
    whole = {name: int((HELD_OUT.subjects == name).sum()) for name in set(drawn.subjects)}
    assert whole == {name: int((drawn.subjects == name).sum()) for name in set(drawn.subjects)}
    assert drawn_people(HELD_OUT, 10_000, 0) is HELD_OUT


@pytest.mark.parametrize(("trained", "others"), [(None, 1000), (1e9, 1000), (1.0, 40), (200_000.0, None)])
def test_numbers_are_ranked_among_as_many_others_as_a_share_of_training_allows(
    trained: float | None, others: int | None
) -> None:
    asked = Asked(FORGET, HELD_OUT, KEPT, frozenset(), trained)
    counts = {len(made) for values in asked.values.values() for _, made in values}
    characters = sum(len(value.value) for values in asked.values.values() for value, _ in values)
    assert counts == {others or int(VALUE_SHARE * 3 * 200_000) // characters}
    assert 40 <= min(counts) <= 1000
    known = Asked(FORGET, HELD_OUT, KEPT, frozenset(), trained)
    assert known.values == asked.values


def test_the_check_says_among_how_many_others(models: Models) -> None:
    found = judged(models.original, models.original)
    assert "among 1,000 others each" in check_of(found, "value_exposure").statistic
    assert found.metrics["value_exposure_others"] == 1000
    assert (check_of(found, "value_exposure_control").estimate or 0) > 7
    bare = models.original.drop_columns(["value_others"])
    before = judged(bare, bare)
    assert "value_exposure_others" not in before.metrics
    assert check_of(before, "value_exposure").estimate == check_of(found, "value_exposure").estimate
