"""Training: repeatable to the byte, counted, stopped when asked, and honest about a loss that is not finite."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer

from service.catalogue.recipes import Recipe
from service.errors import BadDataset, BadParameters, BadRecipe, Cancelled, JobError
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.modeling.batching import Encoded
from workers.modeling.devices import generator, resolve_device
from workers.modeling.images import ImageClassification, Preparation
from workers.modeling.optimizers import schedule
from workers.modeling.problem import Context, Meter, Progress
from workers.modeling.train import Provenance, train_by_recipe
from workers.modeling.training_record import read_record

P = Provenance("00" * 32, "11" * 32, {"label": "digit"}, excluded=3)


def train(out: Path, recipe: Recipe, data: MemoryRecords, seed: int | None = None) -> bytes:
    train_by_recipe(recipe, data, out, seed, factories.context(), P)
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["resnet", "gpt2"])
def test_the_same_recipe_data_and_seed_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    if kind == "resnet":
        data, _ = factories.digits(129, 10)
        recipe = factories.resnet_recipe(epochs=2, batch_size=64, augmentation="flip-crop", seed=5)
    else:
        data, _ = factories.conversations(12)
        recipe = factories.gpt2_recipe(epochs=2, batch_size=16, seed=5)
        recipe.model.config.update(resid_pdrop=0.1)  # type: ignore[union-attr]
    first = train(tmp_path / "a", recipe, data)
    torch.rand(7)
    assert train(tmp_path / "b", recipe, data, 5) == first
    assert train(tmp_path / "c", recipe, data, 6) != first


def test_a_trained_directory_loads_in_plain_transformers_with_its_record(tmp_path: Path) -> None:
    data, _ = factories.digits(129, 10)
    train(tmp_path / "m", factories.resnet_recipe(epochs=3, batch_size=64), data)
    model, report = AutoModelForImageClassification.from_pretrained(str(tmp_path / "m"), output_loading_info=True)
    assert not report["missing_keys"]
    assert model.config.num_labels == 10
    record = read_record(tmp_path / "m")
    assert record is not None
    assert (record.records, record.subjects, record.excluded, record.steps) == (129, 13, 3, 6)
    assert (record.data_digest, record.holdout_digest, record.columns) == ("00" * 32, "11" * 32, {"label": "digit"})
    assert json.loads((tmp_path / "m/training_record.json").read_text())["schema"] == "lethe/training-record/1"
    seen = pq.read_table(tmp_path / "m/training_records.parquet").to_pydict()
    assert seen["record_id"] == data.ids.tolist()
    assert seen["exposures"] == [3] * 129


def test_a_trained_language_model_loads_in_plain_transformers(tmp_path: Path) -> None:
    data, _ = factories.conversations(6)
    train(tmp_path / "m", factories.gpt2_recipe(epochs=1, batch_size=16), data)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "m"))
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"))
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.model_max_length == 64


def test_a_base_is_fine_tuned_from(tmp_path: Path) -> None:
    data, _ = factories.digits(64, 10)
    train(tmp_path / "base", factories.resnet_recipe(epochs=1, batch_size=64), data)
    model = {"task": "image-classification", "base": str(tmp_path / "base")}
    gentle = Recipe.model_validate({"model": model, "training": {"epochs": 1, "learning_rate": 1e-12}})
    train(tmp_path / "tuned", gentle, data)
    pair = [AutoModelForImageClassification.from_pretrained(str(tmp_path / name)) for name in ("base", "tuned")]
    before, after = (dict(made.named_parameters()) for made in pair)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hiden_sizes": [1]}, "resnet has no setting hiden_sizes"),
        ({"model_type": "resnext9"}, "unknown to transformers"),
        ({"num_channels": 2}, "num_channels 2"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    recipe = Recipe.model_validate({"model": {"task": "image-classification", "config": factories.RESNET | change}})
    with pytest.raises(Exception, match=told) as caught:
        train(tmp_path / "m", recipe, factories.digits(20, 10)[0])
    assert type(caught.value).__name__ in ("BadRecipe", "BadModel")
    assert list(tmp_path.iterdir()) == []


def test_positions_bound_the_length(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"max_length 128 is over the model's 64 positions"):
        train(tmp_path / "m", factories.gpt2_recipe(max_length=128), factories.conversations(3)[0])


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    data, _ = factories.digits(128, 10)
    with pytest.raises(JobError, match=r"the loss is (nan|inf) at step \d+"):
        train(tmp_path / "m", factories.resnet_recipe(epochs=9, batch_size=64, optimizer="sgd", learning_rate=99), data)
    assert list(tmp_path.iterdir()) == []


def test_cancellation_leaves_nothing(tmp_path: Path) -> None:
    calls = iter(range(100))
    recipe = factories.resnet_recipe(epochs=5, batch_size=64)
    context = Context(torch.device("cpu"), cancelled=lambda: next(calls) == 3)
    with pytest.raises(Cancelled, match="after step 4 of"):
        train_by_recipe(recipe, factories.digits(128, 10)[0], tmp_path / "m", 0, context, P)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_train_on_and_an_existing_directory_are_refused(tmp_path: Path) -> None:
    data, _ = factories.digits(20, 10)
    with pytest.raises(BadDataset, match="no records"):
        train_by_recipe(
            factories.resnet_recipe(),
            data.subset([]),
            tmp_path / "m",
            0,
            factories.context(),
            Provenance("", num_labels=2),
        )
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(BadParameters, match="exists already"):
        train(tmp_path / "full", factories.resnet_recipe(), data)


def test_schedules() -> None:
    assert [schedule("linear", step, 10, 2) for step in (0, 1, 2, 6)] == [0.5, 1.0, 1.0, 0.5]
    assert schedule("cosine", 5, 10, 0) == pytest.approx(0.5)
    assert schedule("constant", 9, 10, 0) == 1.0


def test_an_epoch_holds_each_record_once_and_no_batch_of_one() -> None:
    data, _ = factories.digits(65, 10)
    encoded = Encoded(ImageClassification(1, 10, Preparation()), data)
    batches = encoded.shuffled(16, generator(0, 1))
    assert sorted(row for batch in batches for row in batch) == list(range(65))
    assert [len(batch) for batch in batches] == [16, 16, 16, 17]
    assert batches != encoded.shuffled(16, generator(0, 2))


def test_progress_ends_at_one_with_figures() -> None:
    told: list[Progress] = []
    meter = Meter(Context(torch.device("cpu"), progress=told.append), 4, "training", interval=0.0)
    for step in range(1, 5):
        meter.step(step, {"loss": 1.0})
    assert [progress.fraction for progress in told] == [0.25, 0.5, 0.75, 1.0]
    assert told[-1].eta_seconds == 0.0
    assert np.isfinite([progress.eta_seconds for progress in told if progress.eta_seconds is not None]).all()


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    for name in ("cuda:99", "meta", "nonsense"):
        with pytest.raises(BadParameters, match=name):
            resolve_device(name)
