"""SISA training: who belongs where, what is published, what is kept, and what the lineage says of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from service.catalogue.lineage import LINEAGE
from service.errors import BadDataset, Cancelled
from tests.workers import factories
from tests.workers.sharded_models import CPU, DIGEST, SHARDS, SLICES, Sharded, recipe, states, train
from workers.lineage.store import ModelHistory
from workers.modeling.directories import sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.parts import affordable_slices, divide, state_place
from workers.modeling.problem import Progress
from workers.modeling.states import WEIGHTS
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures, read_record
from workers.modeling.wide_resnet import obstacle


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    return train(tmp_path_factory.mktemp("shards"), recipe(), factories.digits(240, 60)[0])


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


def test_progress_goes_from_nothing_to_all_and_names_the_shard(images: Sharded, tmp_path: Path) -> None:
    told: list[Progress] = []
    context = replace(factories.context(), progress=told.append)
    train_by_recipe(images.recipe, images.data, tmp_path / "model", 0, context, Provenance(DIGEST))
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert {progress.message for progress in told} == {f"shard {number} of 4, training" for number in range(1, 5)}


def test_a_cancelled_training_leaves_nothing(images: Sharded, tmp_path: Path) -> None:
    calls = iter(range(1000))
    context = replace(factories.context(), cancelled=lambda: next(calls) > 40)
    with pytest.raises(Cancelled):
        train_by_recipe(images.recipe, images.data, tmp_path / "model", 0, context, Provenance(DIGEST))
    assert list(tmp_path.iterdir()) == []


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
