"""SISA: the shards' mean is what is published, and forgetting is byte for byte the training without the records."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForImageClassification

from service.catalogue.recipes import Recipe
from service.errors import BadDataset, MethodRefused
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.store import ModelHistory
from workers.modeling.directories import LINEAGE, sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.parts import StoredParts, affordable_slices, divide, state_place
from workers.modeling.problem import Problem
from workers.modeling.sharding import train_shards
from workers.modeling.states import WEIGHTS
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures, read_record
from workers.modeling.wide_resnet import obstacle
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.problems import build_problem, open_line
from workers.planning.provenance import check_provenance

DIGEST = "00" * 32
SHARDS, SLICES = 4, 3
CPU = torch.device("cpu")


def recipe(shards: int = SHARDS, slices: int = SLICES, **lineage: Any) -> Recipe:
    plain = factories.resnet_recipe(epochs=4, batch_size=16, learning_rate=3e-3)
    sections = {"sharding": {"shards": shards, "slices": slices}, "lineage": lineage}
    return Recipe.model_validate(plain.model_dump(mode="json") | sections)


@dataclass(frozen=True)
class Sharded:
    """A model trained in shards with its lineage, and its data."""

    base: Path
    recipe: Recipe
    data: MemoryRecords

    @property
    def parts(self) -> StoredParts:
        return StoredParts(self.base, "shards")

    def ids(self, part: int, piece: int, count: int = 2) -> list[str]:
        """Records of one slice of one shard."""
        table = self.parts.table
        found: list[str] = table.ids[(table.part == part) & (table.slice == piece)].tolist()
        return found[:count]

    def problem(self, ids: list[str], data: MemoryRecords | None = None, base: Path | None = None) -> Problem:
        line = open_line(base or self.base, self.data.task, data or self.data, None, None)
        return build_problem(line, ids, self.recipe, DIGEST, {})

    def forget(self, ids: list[str], out: Path, **params: Any) -> AttemptResult:
        return run_attempt("sharded", params, self.problem(ids), factories.context(7), out)


def train(folder: Path, chosen: Recipe, data: MemoryRecords) -> Sharded:
    context = replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(chosen, data, folder / "model", 0, context, Provenance(DIGEST))
    return Sharded(folder / "model", chosen, data)


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


def states(directory: Path) -> dict[str, str]:
    folder = directory / LINEAGE / "parts"
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*.safetensors")}


# Training.


def test_subjects_are_never_split_and_parts_are_balanced() -> None:
    data, _ = factories.digits(600, 10)
    table = divide(data, 5, 3, 0)
    for subject in np.unique(data.subjects):
        rows = data.subjects == subject
        assert len(set(table.part[rows])) == len(set(table.slice[rows])) == 1
    sizes = [np.bincount(table.slice[table.part == part], minlength=3) for part in range(5)]
    assert np.ptp([size.sum() for size in sizes]) <= 10
    assert max(np.ptp(size) for size in sizes) <= 10


def test_who_belongs_where_hangs_on_the_seed_and_not_on_the_order_of_the_records() -> None:
    data, _ = factories.digits(600, 10)
    table, turned = divide(data, 5, 3, 0), divide(data.subset(range(599, -1, -1)), 5, 3, 0)
    assert np.array_equal(table.part, turned.part[::-1])
    assert np.array_equal(table.slice, turned.slice[::-1])
    assert not np.array_equal(table.part, divide(data, 5, 3, 1).part)


def test_more_shards_than_subjects_are_refused() -> None:
    data, _ = factories.digits(100, 10)
    with pytest.raises(BadDataset, match="11 parts need at least as many subjects, and the data has 10"):
        divide(data, 11, 1, 0)


def test_the_published_model_is_the_mean_of_its_shards(images: Sharded) -> None:
    model = AutoModelForImageClassification.from_pretrained(images.base).eval()
    loaded = load_model(images.base, "image-classification", CPU)
    held_out = factories.digits(240, 60)[1]
    pixels = loaded.task.batch(loaded.task.encode(held_out.take(range(60))), list(range(60)))["pixel_values"]
    plain = factories.RESNET | {"num_labels": 10}
    single = AutoModelForImageClassification.from_config(type(model.config)(**plain)).eval()
    with torch.no_grad():
        logits = []
        for part in range(SHARDS):
            path = state_place(images.base / LINEAGE, part, SLICES - 1) / WEIGHTS
            single.load_state_dict(read_all(path))
            logits.append(single(pixel_values=pixels).logits)
        mean, merged = torch.stack(logits).mean(dim=0), model(pixel_values=pixels).logits
    assert torch.allclose(merged, mean, atol=1e-5, rtol=1e-5)
    assert torch.equal(merged.argmax(dim=1), mean.argmax(dim=1))
    # The shards themselves differ, so that the mean is not one of them.
    assert not torch.allclose(logits[0], mean, atol=1e-2)


def read_all(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_bottlenecks_merge_too(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    from workers.modeling.wide_resnet import merge_resnets

    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], layer_type="bottleneck", num_labels=4
    )
    members = [ResNetForImageClassification(config) for _ in range(3)]
    pixels = torch.randn(8, 3, 32, 32)
    for member in members:
        member.train()
        member(pixel_values=pixels)
        member.eval()
    merged = merge_resnets(members[0], [member.state_dict() for member in members])
    with torch.no_grad():
        mean = torch.stack([member(pixel_values=pixels).logits for member in members]).mean(dim=0)
        assert torch.allclose(merged(pixel_values=pixels).logits, mean, atol=1e-5, rtol=1e-5)
    assert obstacle(members[0], 3) is None
    too_large = "merged, the 3 members would take 0 MiB, over the limit of 0 MiB"
    assert obstacle(members[0], 3, limit=1000) == too_large


def test_the_work_is_that_of_the_recipes_epochs(images: Sharded) -> None:
    record = read_record(images.base)
    assert record is not None
    exposures = read_exposures(images.base)
    assert exposures["exposures"].to_numpy().sum() == record.cost["samples"] == pytest.approx(4 * 240, rel=0.05)
    assert record.records == 240
    assert record.steps == sum(state.steps for state in images.parts.facts.states)
    table = images.parts.table
    # A record of the last slice is met in the last stage only, one of the first slice in all of them.
    assert (table.exposures[table.slice == 2, :2] == 0).all()
    assert (table.exposures[table.slice == 0] > 0).all()


def test_the_lineage_of_a_training_in_shards_covers_all_its_steps(images: Sharded) -> None:
    history, record = ModelHistory(images.base), read_record(images.base)
    assert record is not None
    assert record.parts == sha256_file(images.base / LINEAGE / "parts.json")
    assert history.log.steps == history.steps == record.steps
    assert history.checkpoints == []
    exposures = read_exposures(images.base).to_pydict()
    seen = dict(zip(exposures["record_id"], exposures["exposures"], strict=True))
    logged = history.log.exposures(len(history.records.ids))
    assert dict(zip(history.records.ids.tolist(), logged.tolist(), strict=True)) == seen
    assert (history.records.events[:, 0] > 0).all()


def test_the_storage_budget_bounds_the_states_and_not_the_result(images: Sharded, tmp_path: Path) -> None:
    bounded = train(tmp_path, recipe(storage="4MiB"), images.data)
    assert len(states(bounded.base)) < len(states(images.base))
    assert sha256_file(bounded.base / WEIGHTS) == sha256_file(images.base / WEIGHTS)
    ids = bounded.ids(1, 2)
    bounded.forget(ids, tmp_path / "out")
    images.forget(ids, tmp_path / "fully-kept")
    assert sha256_file(tmp_path / "out" / WEIGHTS) == sha256_file(tmp_path / "fully-kept" / WEIGHTS)


def test_states_are_spread_over_the_slices() -> None:
    assert affordable_slices(5, 9) == {0, 1, 2, 3}
    assert affordable_slices(5, 2) == {1, 3}
    assert affordable_slices(5, 0) == affordable_slices(1, 3) == set()


# Forgetting.


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
