"""Adapters of cohorts: the published model is the base plus their mean, and forgetting is the training without."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageClassification

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import BadDataset, BadRecipe, MethodRefused
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.store import ModelHistory
from workers.modeling.adapters import train_adapters
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.directories import directory_digest, sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.parts import StoredParts, state_place
from workers.modeling.problem import Problem
from workers.modeling.states import WEIGHTS
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures, read_record
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.problems import build_problem, open_line
from workers.planning.provenance import check_provenance

DIGEST = "00" * 32
COHORTS = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Adapted:
    """A base, a model with adapters on it, and the data of the adapters."""

    public: Path
    base: Path
    recipe: Recipe
    data: MemoryRecords

    @property
    def parts(self) -> StoredParts:
        return StoredParts(self.base, "adapters")

    def ids(self, cohort: int, count: int = 2) -> list[str]:
        found: list[str] = self.parts.table.ids[self.parts.table.part == cohort].tolist()
        return found[:count]

    def problem(self, ids: list[str], data: MemoryRecords | None = None) -> Problem:
        line = open_line(self.base, self.data.task, data or self.data, None, None)
        return build_problem(line, ids, self.recipe, DIGEST, {})

    def forget(self, ids: list[str], out: Path) -> AttemptResult:
        return run_attempt("adapter", {}, self.problem(ids), factories.context(7), out)

    def adapter(self, cohort: int, base: Path | None = None) -> Path:
        return state_place((base or self.base) / LINEAGE, cohort, 0)


def on_base(public: Path, task: str, **training: object) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"task": task, "base": str(public)},
            "training": {"max_length": 64, **training},
            "adapters": {"cohorts": COHORTS, "rank": 4, "alpha": 8},
            "sources": {"base": directory_digest(public)},
        }
    )


def train(folder: Path, recipe: Recipe, data: MemoryRecords) -> Adapted:
    context = replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(recipe, data, folder / "model", 0, context, Provenance(DIGEST))
    return Adapted(Path(str(recipe.model.base)), folder / "model", recipe, data)


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("talks")
    data, others = factories.conversations(18, 30)
    train_by_recipe(
        factories.gpt2_recipe(epochs=4, batch_size=16, learning_rate=3e-3),
        others, folder / "public", 0, factories.context(), Provenance(DIGEST),
    )  # fmt: skip
    return train(folder, on_base(folder / "public", "causal-lm", epochs=6, batch_size=4, learning_rate=1e-2), data)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    folder = tmp_path_factory.mktemp("images")
    everything, _ = factories.digits(500, 10, noise=0.0)
    even = everything.subset(
        [at for at in range(250) if everything.columns["label"][at] < 5]
    )  # a base that knows five of the ten digits: its head does not fit
    train_by_recipe(
        factories.resnet_recipe(epochs=4, batch_size=16, learning_rate=3e-3),
        even, folder / "public", 0, factories.context(), Provenance(DIGEST),
    )  # fmt: skip
    recipe = on_base(folder / "public", "image-classification", epochs=12, batch_size=16, learning_rate=5e-3)
    return train(folder, recipe, everything.subset(range(250, 500)))


@pytest.fixture(params=["talks", "images"])
def line(request: pytest.FixtureRequest) -> Adapted:
    found: Adapted = request.getfixturevalue(request.param)
    return found


def by_hand(line: Adapted, problem: Problem, out: Path, seed: int = 0) -> Path:
    """Train on the retained records from nothing, with everybody in their cohort."""
    table, records, _ = line.parts.without(problem.retain)
    out.mkdir()
    labels = 10 if line.data.task == "image-classification" else None
    provenance = Provenance(DIGEST, num_labels=labels, prepared=line.base)
    train_adapters(line.recipe, records, out, seed, factories.context(), provenance, table)
    return out


def mean_loss(directory: Path, data: MemoryRecords) -> float:
    loaded = load_model(directory, data.task, CPU)
    return float(record_losses(loaded.model, Encoded(loaded.task, data), CPU, 64)[0].mean())


# Training.


def test_the_published_model_is_the_base_plus_the_mean_of_the_adapters(talks: Adapted) -> None:
    base = AutoModelForCausalLM.from_pretrained(talks.public).state_dict()
    published = AutoModelForCausalLM.from_pretrained(talks.base).state_dict()
    adapters = [load_file(talks.adapter(cohort) / "adapter_model.safetensors") for cohort in range(COHORTS)]
    adapted = set()
    for name, value in base.items():
        key = "base_model.model." + name.removesuffix(".weight")
        if f"{key}.lora_A.weight" in adapters[0]:
            adapted.add(name)
            products = [2.0 * a[f"{key}.lora_B.weight"] @ a[f"{key}.lora_A.weight"] for a in adapters]
            value = value + torch.stack(products).mean(dim=0).T  # noqa: PLW2901
            assert not torch.equal(published[name], base[name])
        assert torch.allclose(published[name], value, atol=1e-6), name
    assert len(adapted) == 8
    assert "transformer.wte.weight" not in adapted


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks transformers
def test_an_adapter_loads_in_plain_peft(talks: Adapted) -> None:
    base = AutoModelForCausalLM.from_pretrained(talks.public)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = base(tokens).logits
        after = PeftModel.from_pretrained(base, str(talks.adapter(1))).eval()(tokens).logits
    assert not torch.allclose(before, after, atol=1e-3)


def test_a_classifiers_head_is_averaged_and_the_statistics_of_its_base_stay(images: Adapted) -> None:
    base = AutoModelForImageClassification.from_pretrained(images.public).state_dict()
    published = AutoModelForImageClassification.from_pretrained(images.base).state_dict()
    heads = [load_file(images.adapter(cohort) / "adapter_model.safetensors") for cohort in range(COHORTS)]
    mean = torch.stack([head["base_model.model.classifier.1.weight"] for head in heads]).mean(dim=0)
    assert published["classifier.1.weight"].shape == (10, 64)
    assert torch.allclose(published["classifier.1.weight"], mean, atol=1e-6)
    statistics = [name for name in base if "running" in name or "normalization" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(base[name], published[name]), name


def test_the_mean_of_the_adapters_has_learnt_what_the_base_did_not_know(talks: Adapted, images: Adapted) -> None:
    assert mean_loss(talks.base, talks.data) < mean_loss(talks.public, talks.data) - 0.1
    loaded = load_model(images.base, images.data.task, CPU)
    losses = record_losses(loaded.model, Encoded(loaded.task, images.data), CPU, 64)[0]
    assert losses.mean() < np.log(10) / 2


def test_every_record_is_met_by_its_own_adapter_as_often_as_the_recipe_says(talks: Adapted) -> None:
    exposures = read_exposures(talks.base)
    assert exposures["exposures"].to_pylist() == [6] * len(talks.data)
    record, history = read_record(talks.base), ModelHistory(talks.base)
    assert record is not None
    assert record.steps == history.steps == history.log.steps
    assert record.tokens is not None


def test_more_cohorts_than_subjects_and_a_body_without_layers_are_refused(talks: Adapted, tmp_path: Path) -> None:
    few = talks.data.subset(range(10))
    with pytest.raises(BadDataset, match="3 parts need at least as many subjects, and the data has 2"):
        train_by_recipe(talks.recipe, few, tmp_path / "out", 0, factories.context(), Provenance(DIGEST))
    bare = talks.recipe.model_copy(update={"adapters": None})
    with pytest.raises(BadRecipe, match=r"no \[adapters\]"):
        train_adapters(bare, talks.data, tmp_path, 0, factories.context(), Provenance(DIGEST))


# Forgetting.


def some_of_a_cohort(line: Adapted) -> list[str]:
    return line.ids(1)


def two_cohorts(line: Adapted) -> list[str]:
    return line.ids(0, 1) + line.ids(2, 3)


def a_whole_cohort(line: Adapted) -> list[str]:
    return line.ids(1, 10_000)


@pytest.mark.parametrize("choose", [some_of_a_cohort, two_cohorts, a_whole_cohort])
def test_forgetting_is_byte_for_byte_the_training_without_the_records(
    line: Adapted, tmp_path: Path, choose: Callable[[Adapted], list[str]]
) -> None:
    ids = choose(line)
    result = line.forget(ids, tmp_path / "out")
    expected = by_hand(line, line.problem(ids), tmp_path / "hand")
    assert result.exact
    assert sha256_file(tmp_path / "out" / WEIGHTS) == sha256_file(expected / WEIGHTS)
    assert sha256_file(tmp_path / "out" / WEIGHTS) != sha256_file(line.base / WEIGHTS)
    touched = set(line.parts.table.part[np.isin(line.parts.table.ids, ids)].tolist())
    for cohort in range(COHORTS):
        before, after, wanted = (
            {path.name: sha256_file(path) for path in line.adapter(cohort, base).glob("*")}
            for base in (line.base, tmp_path / "out", expected)
        )
        assert after == wanted
        assert (after == before) == (cohort not in touched)
    kept = read_exposures(tmp_path / "out")
    assert kept.sort_by("record_id").equals(read_exposures(expected).sort_by("record_id"))
    assert set(kept["record_id"].to_pylist()) == set(line.data.ids.tolist()) - set(ids)


def test_another_seed_gives_other_bytes(talks: Adapted, tmp_path: Path) -> None:
    ids = some_of_a_cohort(talks)
    talks.forget(ids, tmp_path / "out")
    other = by_hand(talks, talks.problem(ids), tmp_path / "hand", seed=1)
    assert sha256_file(tmp_path / "out" / WEIGHTS) != sha256_file(other / WEIGHTS)


def test_an_empty_cohort_is_dropped(talks: Adapted, tmp_path: Path) -> None:
    result = talks.forget(a_whole_cohort(talks), tmp_path / "out")
    assert result.steps == 0
    assert result.notes == [
        "1 of 3 adapters had met a forgotten record, 1 of them dropped with their cohort; the others are unchanged, "
        "byte for byte"
    ]
    assert not talks.adapter(1, tmp_path / "out").exists()


def test_the_candidate_passes_by_its_procedure_and_not_if_a_forgotten_record_was_met(
    talks: Adapted, tmp_path: Path
) -> None:
    ids = some_of_a_cohort(talks)
    talks.forget(ids, tmp_path / "out")
    every = set(talks.data.ids.tolist())
    told = check_provenance(tmp_path / "out", talks.base, ids, every)
    assert (told.claimed, told.holds) == (True, True), told.reason
    assert told.reason.startswith("adapter: none of the 2 forgotten records")
    caught = check_provenance(tmp_path / "out", talks.base, talks.ids(0), every)
    assert (caught.claimed, caught.holds) == (True, False)


# Bad input.


def test_a_damaged_adapter_of_an_untouched_cohort_is_refused(talks: Adapted, tmp_path: Path) -> None:
    shutil.copytree(talks.base, tmp_path / "copy")
    copied = replace(talks, base=tmp_path / "copy")
    path = copied.adapter(2) / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(MethodRefused, match=r"adapter_model\.safetensors is missing or not the file that was recorded"):
        copied.forget(talks.ids(0), tmp_path / "out")
    shutil.rmtree(copied.base / LINEAGE)
    with pytest.raises(MethodRefused, match="no adapters are left of the training of the model"):
        copied.forget(talks.parts.table.ids[:1].tolist(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_that_was_replaced_is_refused_though_no_digest_in_the_recipe_tells(
    talks: Adapted, tmp_path: Path
) -> None:
    shutil.copytree(talks.public, tmp_path / "hub")
    loose = on_base(tmp_path / "hub", "causal-lm", epochs=1, batch_size=8).model_copy(update={"sources": {}})
    line = train(tmp_path, loose, talks.data)
    ids = line.ids(0)
    line.forget(ids, tmp_path / "before")
    shutil.copyfile(talks.base / WEIGHTS, tmp_path / "hub" / WEIGHTS)
    with pytest.raises(MethodRefused, match="the base is not the one that the adapters were trained on"):
        line.forget(ids, tmp_path / "after")


def test_changed_data_another_recipe_and_one_without_adapters_are_refused(talks: Adapted, tmp_path: Path) -> None:
    ids = talks.ids(0)
    columns = {role: list(values) for role, values in talks.data.columns.items()}
    columns["completion"][int(talks.data.rows_of(talks.ids(1))[0])] += " Indeed."
    changed = MemoryRecords("causal-lm", talks.data.ids, talks.data.subjects, columns)
    with pytest.raises(MethodRefused, match="1 of 88 records are not what they were"):
        run_attempt("adapter", {}, talks.problem(ids, changed), factories.context(), tmp_path / "out")
    problem = talks.problem(ids)
    plain = replace(problem, recipe=talks.recipe.model_copy(update={"adapters": None}))
    with pytest.raises(MethodRefused, match="the model has no adapters of its own"):
        run_attempt("adapter", {}, plain, factories.context(), tmp_path / "out")
    moved = talks.recipe.model_copy(update={"sources": {"base": "11" * 32}})
    with pytest.raises(MethodRefused, match="the recipe is not the one of the parts"):
        run_attempt("adapter", {}, replace(problem, recipe=moved), factories.context(), tmp_path / "out")
