"""SISA: the shards' mean is what is published, and forgetting is byte for byte the training without the records."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.catalogue.lineage import LINEAGE
from service.errors import MethodRefused
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from tests.workers.sharded_models import CPU, DIGEST, SLICES, Sharded, recipe, states, train
from workers.lineage.store import ModelHistory
from workers.modeling.directories import sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.parts import StoredParts, state_place
from workers.modeling.problem import Problem
from workers.modeling.sharding import train_shards
from workers.modeling.states import WEIGHTS
from workers.modeling.training_record import read_exposures, read_record
from workers.planning.attempt import run_attempt
from workers.planning.provenance import check_provenance


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    return train(tmp_path_factory.mktemp("shards"), recipe(), factories.digits(240, 60)[0])


def by_hand(line: Sharded, problem: Problem, out: Path, seed: int = 0) -> Path:
    """Train on the retained records from nothing, with everybody where they were."""
    table, records, _ = StoredParts(problem.base_dir, "shards").without(problem.retain)
    out.mkdir()
    provenance = Provenance(DIGEST, num_labels=10)
    train_shards(line.recipe, records, out, seed, factories.context(), provenance, table)
    return out


def first_slice(line: Sharded) -> list[str]:
    return line.ids(0, 0)


def last_slice(line: Sharded) -> list[str]:
    return line.ids(2, SLICES - 1)


def two_shards(line: Sharded) -> list[str]:
    return line.ids(1, 1, 1) + line.ids(3, 2, 5)


def whole_slice(line: Sharded) -> list[str]:
    return line.ids(1, 0, 240)


def whole_shard(line: Sharded) -> list[str]:
    return [name for piece in range(SLICES) for name in line.ids(1, piece, 240)]


@pytest.mark.parametrize("choose", [first_slice, last_slice, two_shards, whole_slice, whole_shard])
def test_forgetting_is_byte_for_byte_the_training_without_the_records(
    images: Sharded, tmp_path: Path, choose: Callable[[Sharded], list[str]]
) -> None:
    ids = choose(images)
    result = images.forget(ids, tmp_path / "out")
    expected = by_hand(images, images.problem(ids), tmp_path / "hand")
    assert result.exact
    assert sha256_file(tmp_path / "out" / WEIGHTS) == sha256_file(expected / WEIGHTS)
    assert states(tmp_path / "out") == states(expected)
    assert sha256_file(tmp_path / "out" / LINEAGE / "parts.parquet") == sha256_file(
        expected / LINEAGE / "parts.parquet"
    )
    kept, by_training = read_exposures(tmp_path / "out"), read_exposures(expected)
    assert kept.sort_by("record_id").equals(by_training.sort_by("record_id"))
    assert not set(ids) & set(kept["record_id"].to_pylist())
    assert len(kept) == len(images.data) - len(ids)
    load_model(tmp_path / "out", "image-classification", CPU)


def test_it_is_exact_with_momentum_augmentation_and_accumulation_too(images: Sharded, tmp_path: Path) -> None:
    settings = {"optimizer": "sgd", "learning_rate": 0.05, "augmentation": "flip-crop", "accumulation": 2}
    plain = recipe()
    chosen = plain.model_copy(update={"training": plain.training.model_copy(update=settings)})
    other = train(tmp_path, chosen, images.data)
    ids = other.ids(3, 2)
    other.forget(ids, tmp_path / "out")
    expected = by_hand(other, other.problem(ids), tmp_path / "hand")
    assert sha256_file(tmp_path / "out" / WEIGHTS) == sha256_file(expected / WEIGHTS)
    assert states(tmp_path / "out") == states(expected)


def test_another_seed_gives_other_bytes(images: Sharded, tmp_path: Path) -> None:
    ids = last_slice(images)
    images.forget(ids, tmp_path / "out")
    other = by_hand(images, images.problem(ids), tmp_path / "hand", seed=1)
    assert sha256_file(tmp_path / "out" / WEIGHTS) != sha256_file(other / WEIGHTS)


def test_what_met_no_forgotten_record_is_taken_over(images: Sharded, tmp_path: Path) -> None:
    result = images.forget(images.ids(2, 1), tmp_path / "out")
    before, after = states(images.base), states(tmp_path / "out")
    changed = {name.rsplit("/", 1)[0] for name in before if before[name] != after[name]}
    assert changed == {"002/slice-01", "002/slice-02"}
    record, base = read_record(tmp_path / "out"), read_record(images.base)
    assert record is not None
    assert base is not None
    assert result.steps == record.steps < base.steps / 4
    assert result.notes == ["1 of 4 shards held a forgotten record; the others are unchanged, byte for byte"]
    # What a whole training takes, whoever did it.
    assert record.seconds == pytest.approx(base.seconds, rel=1.0)


def test_the_beginning_gives_the_same_bytes(images: Sharded, tmp_path: Path) -> None:
    ids = last_slice(images)
    images.forget(ids, tmp_path / "out")
    slow = images.forget(ids, tmp_path / "slow", start="beginning")
    assert sha256_file(tmp_path / "out" / WEIGHTS) == sha256_file(tmp_path / "slow" / WEIGHTS)
    assert slow.steps > images.parts.state(2, 2).steps


def test_forgetting_goes_on_from_what_was_forgotten_before(images: Sharded, tmp_path: Path) -> None:
    first, second = images.ids(0, 1), images.ids(3, 0)
    images.forget(first, tmp_path / "one")
    rows = np.flatnonzero(~np.isin(images.data.ids, first))
    after = replace(images, base=tmp_path / "one", data=images.data.subset(rows.tolist()))
    after.forget(second, tmp_path / "two")
    images.forget([*first, *second], tmp_path / "both")
    assert sha256_file(tmp_path / "two" / WEIGHTS) == sha256_file(tmp_path / "both" / WEIGHTS)
    assert states(tmp_path / "two") == states(tmp_path / "both")


def test_the_lineage_goes_on_without_the_forgotten_records(images: Sharded, tmp_path: Path) -> None:
    ids = two_shards(images)
    images.forget(ids, tmp_path / "out")
    history, before = ModelHistory(tmp_path / "out"), ModelHistory(images.base)
    assert not set(ids) & set(history.records.ids.tolist())
    kept = read_exposures(tmp_path / "out").sort_by("record_id")
    order = np.argsort(history.records.ids)
    assert history.log.exposures(len(order))[order].tolist() == kept["exposures"].to_pylist()
    assert history.log.steps == history.steps
    # Of an untouched shard the log and what was learnt of its records are as they were.
    place = {name: at for at, name in enumerate(before.records.ids.tolist())}
    table = StoredParts(tmp_path / "out", "shards").table
    untouched = [at for at, name in enumerate(history.records.ids) if name in set(table.ids[table.part == 0])]
    old = before.records.events[[place[name] for name in history.records.ids[untouched]]]
    assert np.allclose(history.records.events[untouched], old)


def test_the_candidate_passes_by_its_procedure_and_not_if_a_forgotten_record_was_met(
    images: Sharded, tmp_path: Path
) -> None:
    ids = last_slice(images)
    images.forget(ids, tmp_path / "out")
    every = set(images.data.ids.tolist())
    told = check_provenance(tmp_path / "out", images.base, ids, every)
    assert (told.claimed, told.holds) == (True, True), told.reason
    assert told.reason.startswith("sharded: none of the 2 forgotten records was in a batch")
    caught = check_provenance(tmp_path / "out", images.base, [*ids, images.ids(0, 0)[0]], every)
    assert (caught.claimed, caught.holds) == (True, False)
    assert "1 of the 3 forgotten records were in its batches" in caught.reason


# Bad input.


@pytest.fixture
def copied(images: Sharded, tmp_path: Path) -> Sharded:
    shutil.copytree(images.base, tmp_path / "copy")
    return replace(images, base=tmp_path / "copy")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def no_parts(line: Sharded) -> str:
    shutil.rmtree(line.base / LINEAGE / "parts")
    return "model.safetensors is missing or not the file that was recorded"


def no_facts(line: Sharded) -> str:
    (line.base / LINEAGE / "parts.json").unlink()
    return "no shards are left of the training of the model"


def other_facts(line: Sharded) -> str:
    flip(line.base / LINEAGE / "parts.json")
    return "parts.json is not the one that the training record names"


def other_table(line: Sharded) -> str:
    flip(line.base / LINEAGE / "parts.parquet")
    return "parts.parquet is missing or not the file that was recorded"


def other_state(line: Sharded) -> str:
    flip(state_place(line.base / LINEAGE, 2, 0) / WEIGHTS)
    return "slice-00/model.safetensors is missing or not the file that was recorded"


def other_untouched_shard(line: Sharded) -> str:
    flip(state_place(line.base / LINEAGE, 1, 2) / WEIGHTS)
    return "001/slice-02/model.safetensors is missing or not the file that was recorded"


@pytest.mark.parametrize("spoil", [no_parts, no_facts, other_facts, other_table, other_state, other_untouched_shard])
def test_damaged_parts_are_refused(
    images: Sharded, copied: Sharded, tmp_path: Path, spoil: Callable[[Sharded], str]
) -> None:
    ids = images.ids(2, 1)
    reason = spoil(copied)
    with pytest.raises(MethodRefused, match=reason):
        copied.forget(ids, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_changed_is_refused(images: Sharded, tmp_path: Path) -> None:
    ids = images.ids(2, 1)
    columns = images.data.columns | {"label": [*images.data.columns["label"][:-1], 3]}
    columns["label"][-1] = (images.data.columns["label"][-1] + 1) % 10
    changed = MemoryRecords(images.data.task, images.data.ids, images.data.subjects, columns)
    with pytest.raises(MethodRefused, match="1 of 238 records are not what they were when it was trained"):
        run_attempt("sharded", {}, images.problem(ids, changed), factories.context(), tmp_path / "out")


def test_data_that_grew_is_refused(images: Sharded, tmp_path: Path) -> None:
    more, _ = factories.digits(260, 10)
    names = np.where(np.arange(260) < 240, more.ids, [f"new-{at}" for at in range(260)])
    grown = MemoryRecords(more.task, names, more.subjects, more.columns)
    with pytest.raises(MethodRefused, match="20 of 258 records are in no part of the model"):
        run_attempt("sharded", {}, images.problem(images.ids(2, 1), grown), factories.context(), tmp_path / "out")


def test_another_recipe_and_none_are_refused(images: Sharded, tmp_path: Path) -> None:
    problem = images.problem(images.ids(2, 1))
    other = replace(problem, recipe=recipe(storage="1GiB"))
    with pytest.raises(MethodRefused, match="the recipe is not the one of the parts"):
        run_attempt("sharded", {}, other, factories.context(), tmp_path / "out")
    whole = replace(problem, recipe=recipe(shards=1, slices=1))
    with pytest.raises(MethodRefused, match="the model was not trained in shards"):
        run_attempt("sharded", {}, whole, factories.context(), tmp_path / "out")


def test_no_record_is_in_the_stored_parts_once_forgotten(images: Sharded, tmp_path: Path) -> None:
    ids = whole_shard(images)
    images.forget(ids, tmp_path / "out")
    stored = pq.read_table(tmp_path / "out" / LINEAGE / "parts.parquet")["record_id"].to_pylist()
    assert not set(ids) & set(stored)
    assert not (tmp_path / "out" / LINEAGE / "parts" / "001").exists()
