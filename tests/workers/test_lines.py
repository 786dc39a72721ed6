"""What a training leaves beside its weights is what later work goes by: reserve, canaries, learning events."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.catalogue.lineage import CANARY_PREFIX, LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import BadParameters
from service.registry.files import digest_directory, manifest_digest
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.canaries import read_canaries, verify_commitment
from workers.lineage.prepare import Prepared, prepare
from workers.lineage.reserve import forget_reserved, read_reserve, write_reserve
from workers.lineage.store import EVENTS, ModelHistory
from workers.modeling.fresh import Provenance
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import TrainingRecord, read_exposures, read_record
from workers.planning.attempt import run_attempt
from workers.planning.problems import Line, build_problem, open_line
from workers.planning.provenance import check_provenance

KEY = b"k" * 32
DIGEST = "00" * 32


def train(folder: Path, recipe: Recipe, data: MemoryRecords, has_held_out: bool) -> Prepared:
    prepared = prepare(recipe, data, has_held_out, KEY)
    context = replace(factories.context(), recorder=prepared.recorder)
    train_by_recipe(recipe, prepared.records, folder, 0, context, Provenance(DIGEST))
    return prepared


def many_digits() -> MemoryRecords:
    """Enough records for canaries, of 170 people."""
    first, _ = factories.digits(1700, 90)
    return first


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return factories.resnet_recipe(epochs=2, batch_size=64, learning_rate=3e-3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> tuple[Path, MemoryRecords, Prepared]:
    folder, data = tmp_path_factory.mktemp("planted") / "model", many_digits()
    return folder, data, train(folder, recipe, data, has_held_out=False)


def record_of(folder: Path) -> TrainingRecord:
    record = read_record(folder)
    assert record is not None
    assert record.lineage is not None
    return record


def test_the_reserve_is_never_trained_on_and_stands_in_for_a_held_out_set(
    planted: tuple[Path, MemoryRecords, Prepared],
) -> None:
    folder, data, prepared = planted
    reserve = read_reserve(folder / LINEAGE)
    assert reserve == set(prepared.reserve.ids.tolist())
    assert 0.02 < len(reserve) / len(data) < 0.05
    seen = set(read_exposures(folder)["record_id"].to_pylist())
    assert not seen & reserve
    line = open_line(folder, data.task, data, None, None)
    assert line.held_out is not None
    assert set(line.held_out.ids.tolist()) == reserve
    assert set(line.people.ids.tolist()) == set(data.ids.tolist()) - reserve
    assert not set(line.held_out.subjects.tolist()) & set(line.people.subjects.tolist())
    other, _ = factories.digits(30, 30)
    assert open_line(folder, data.task, data, other, "6b" * 32).held_out is other


def test_canaries_are_sealed_trained_on_and_kept_by_later_trainings(
    planted: tuple[Path, MemoryRecords, Prepared], recipe: Recipe, tmp_path: Path
) -> None:
    folder, data, _ = planted
    record, canaries = record_of(folder), read_canaries(folder / LINEAGE)
    assert canaries is not None
    assert record.lineage is not None
    assert record.lineage.canaries == len(canaries.inside) == 73
    assert len(canaries.outside) == 5 * 73
    assert record.lineage.canary_commitment == canaries.commitment
    assert verify_commitment(canaries, canaries.commitment)
    seen = set(read_exposures(folder)["record_id"].to_pylist())
    assert set(canaries.inside.ids.tolist()) <= seen
    assert not set(canaries.outside.ids.tolist()) & seen
    line = open_line(folder, data.task, data, None, None)
    ids = line.people.ids[:20].tolist()
    run_attempt("retrain", {}, build_problem(line, ids, recipe, DIGEST, {}), factories.context(3), tmp_path / "out")
    again = read_canaries(tmp_path / "out" / LINEAGE)
    assert again is not None
    assert again.commitment == canaries.commitment
    assert read_reserve(tmp_path / "out" / LINEAGE) == read_reserve(folder / LINEAGE)
    after = set(read_exposures(tmp_path / "out")["record_id"].to_pylist())
    assert {name for name in after if name.startswith(CANARY_PREFIX)} == set(canaries.inside.ids.tolist())
    assert after == set(line.people.ids.tolist()[20:]) | set(canaries.inside.ids.tolist())
    found = check_provenance(tmp_path / "out", folder, set(ids), line.trainable_ids)
    assert found.holds, found.reason
    stranger = check_provenance(tmp_path / "out", folder, set(ids), set(line.people.ids.tolist()))
    assert not stranger.holds


def test_a_person_of_the_reserve_is_not_unlearned_but_leaves_it(
    planted: tuple[Path, MemoryRecords, Prepared], recipe: Recipe, tmp_path: Path
) -> None:
    folder, data, _ = planted
    line: Line = open_line(folder, data.task, data, None, None)
    reserved = sorted(line.reserved)[:10]
    with pytest.raises(BadParameters, match="lie in the reserve"):
        build_problem(line, reserved, recipe, DIGEST, {})
    trained = line.people.ids[:3].tolist()
    problem = build_problem(line, [*reserved, *trained], recipe, DIGEST, {})
    assert sorted(problem.forget.ids.tolist()) == sorted(trained)
    run_attempt("retrain", {}, problem, factories.context(), tmp_path / "out")
    assert read_reserve(tmp_path / "out" / LINEAGE) == set(line.reserved) - set(reserved)


def test_a_version_whose_reserve_was_shortened_is_the_same_and_can_be_repeated(
    planted: tuple[Path, MemoryRecords, Prepared], recipe: Recipe, tmp_path: Path
) -> None:
    """Somebody of the reserve was deleted and nothing was published: the list of it is all that changes."""
    folder, data, _ = planted
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    line = open_line(copy, data.task, data, None, None)
    gone = sorted(line.reserved)[:10]
    assert forget_reserved(copy / LINEAGE, gone) == 10
    assert manifest_digest(digest_directory(copy)) == manifest_digest(digest_directory(folder))
    left = data.subset(np.flatnonzero(~np.isin(data.ids, gone)).tolist())
    after = open_line(copy, data.task, left, None, None)
    assert after.reserved == line.reserved - set(gone)
    assert after.trainable_ids == line.trainable_ids
    # The same line as with the whole list, since the records are not in the data any more.
    before = open_line(folder, data.task, left, None, None)
    assert (before.reserved, before.holdout_digest) == (after.reserved, after.holdout_digest)
    problem = build_problem(after, after.people.ids[:3].tolist(), recipe, DIGEST, {})
    run_attempt("replay", {}, problem, factories.context(0), tmp_path / "out")
    assert read_reserve(tmp_path / "out" / LINEAGE) == after.reserved


def test_a_reserve_that_names_a_trained_record_is_not_believed(
    planted: tuple[Path, MemoryRecords, Prepared], tmp_path: Path
) -> None:
    folder, data, prepared = planted
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    trained = prepared.records.ids[:3].tolist()
    write_reserve(read_reserve(copy / LINEAGE) | set(trained), copy / LINEAGE)
    assert open_line(copy, data.task, data, None, None).trained(trained) == trained


def test_small_or_switched_off_data_gets_neither(tmp_path: Path, recipe: Recipe) -> None:
    data, _ = factories.digits(300, 10)
    prepared = prepare(recipe, data, True, KEY)
    assert prepared.canaries is None
    assert len(prepared.reserve) == 0
    assert prepared.records is data
    off = recipe.model_copy(update={"lineage": recipe.bare().lineage})
    prepared = prepare(off, many_digits(), False, KEY)
    assert (prepared.canaries, len(prepared.reserve)) == (None, 0)


def test_the_lineage_is_no_part_of_the_version_s_identity(
    planted: tuple[Path, MemoryRecords, Prepared], tmp_path: Path
) -> None:
    from workers.modeling.directories import directory_digest

    folder = planted[0]
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copy / LINEAGE)
    assert directory_digest(copy) == directory_digest(folder) == manifest_digest(digest_directory(folder))
    assert oct((folder / LINEAGE).stat().st_mode)[-3:] == "700"


def learning_events(folder: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder / LINEAGE / "records.parquet")
    return {name: table[name].to_numpy() for name in ("record_id", *EVENTS)}


def mean_of(values: np.ndarray, ids: np.ndarray, chosen: Sequence[str]) -> float:
    return float(values[np.isin(ids, chosen)].mean())


def test_mislabelled_records_show_in_all_four_learning_events(tmp_path: Path, recipe: Recipe) -> None:
    """The sign trap of 2410.16516: all four fall where a record had to be memorised, the negative entropy too."""
    data, _ = factories.digits(600, 10, noise=0.0)
    wrong = data.ids[:60].tolist()
    labels = data.columns["label"]
    labels[:60] = [(label + 3) % 10 for label in labels[:60]]
    longer = recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 8})})
    train(tmp_path / "model", longer, data, has_held_out=True)
    events = learning_events(tmp_path / "model")
    ids = events["record_id"].astype(str)
    right = [name for name in ids if name not in set(wrong)]
    for name in EVENTS:
        assert mean_of(events[name], ids, wrong) < mean_of(events[name], ids, right), name
    assert mean_of(events["confidence"], ids, wrong) < 0.5 * mean_of(events["confidence"], ids, right)


def test_learning_events_of_texts_agree_with_a_forward_pass(tmp_path: Path) -> None:
    """Steps at rate (nearly) zero: the events are those of the untrained model, for every record.

    Batches are so small that every prediction of theirs is looked at.
    """
    import torch

    from workers.modeling.batching import Encoded
    from workers.modeling.loading import load_model

    data, _ = factories.conversations(12, 1)
    recipe = factories.gpt2_recipe(epochs=1, batch_size=2, learning_rate=1e-12, weight_decay=0.0)
    train(tmp_path / "model", recipe, data, has_held_out=True)
    events = learning_events(tmp_path / "model")
    loaded = load_model(tmp_path / "model", "causal-lm", torch.device("cpu"))
    encoded = Encoded(loaded.task, data)
    rows = list(range(len(data)))
    outputs = loaded.task.outputs(loaded.model, encoded.batch(rows, torch.device("cpu")))
    order = {str(name): at for at, name in enumerate(events["record_id"])}
    for row, name in enumerate(data.ids.tolist()):
        own = outputs.log_probs[outputs.rows == row].exp()
        assert events["confidence"][order[name]] == pytest.approx(float(own.detach().mean()), rel=0.01)
        assert events["negative_entropy"][order[name]] == pytest.approx(-np.log(len(loaded.task.tokenizer)), rel=0.05)


def test_the_training_record_counts_tokens_and_keeps_the_loss_curve(tmp_path: Path) -> None:
    data, _ = factories.conversations(20, 1)
    recipe = factories.gpt2_recipe(epochs=2, batch_size=4)
    train(tmp_path / "model", recipe, data, has_held_out=True)
    record = record_of(tmp_path / "model")
    assert record.tokens is not None
    assert record.tokens > 5 * len(data)
    assert [set(point) for point in record.curve] == [{"step", "loss"}] * len(record.curve)
    assert len(record.curve) > 2
    assert record.curve[-1]["loss"] < record.curve[0]["loss"]
    assert json.loads((tmp_path / "model" / LINEAGE / "lineage.json").read_text())["steps"] == record.steps
    assert ModelHistory(tmp_path / "model").facts.steps == record.steps
