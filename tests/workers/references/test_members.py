"""One member is an ordinary training on its half, with the served model's tokenizer, scored on every record."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from service.catalogue.recipes import Recipe
from service.errors import BadParameters, BadRecipe
from tests.workers import factories
from tests.workers.references.conftest import DATA, HELD_OUT, TINY, tiny_recipe
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures, read_record
from workers.references.layout import SCORES_FILE, Pool, read_split, read_table
from workers.references.members import Materials, reference_recipe, train_member
from workers.references.pool import plan_pool
from workers.references.split import member_seed
from workers.scoring.score import score


def test_a_member_equals_a_training_on_its_half_by_hand(pool: Pool, materials: Materials, tmp_path: Path) -> None:
    planned = read_split(pool.directory)
    half = np.flatnonzero(planned.split.trained_by(5))
    known, seed = Provenance(DATA, HELD_OUT, num_labels=10), member_seed(pool.facts.seed, 5, 0)
    records = materials.data.subset(half.tolist())
    train_by_recipe(materials.recipe.bare(), records, tmp_path / "out", seed, factories.context(), known)
    member = pool.directory / "member-005"
    assert (member / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert read_exposures(member)["record_id"].to_pylist() == planned.train[half].tolist()
    record = read_record(member)
    assert record is not None
    assert (record.records, record.excluded) == (len(half), 150 - len(half))


def test_scores_are_those_of_the_member_and_say_what_it_counts_for(pool: Pool, materials: Materials) -> None:
    table = read_table(pool.directory / "member-003" / SCORES_FILE)
    planned = read_split(pool.directory)
    assert table["set"].to_pylist() == ["train"] * 150 + ["held_out"] * 60
    train, held_out = (table.filter(pc.equal(table["set"], part)) for part in ("train", "held_out"))
    assert train["in"].to_pylist() == planned.split.trained_by(3).tolist()
    assert train["out"].to_pylist() == (~planned.split.trained_by(3)).tolist()
    assert not any(held_out["in"].to_pylist())
    assert 0 < sum(held_out["out"].to_pylist()) < 60
    loaded = load_model(pool.directory / "member-003", "image-classification", factories.context().device)
    expected = score(loaded, materials.held_out, factories.context()).table  # type: ignore[arg-type]
    for column in ("record_id", "subject_id", "confidence", "loss"):
        assert held_out[column].to_pylist() == expected[column].to_pylist()


def test_seeds_of_members_and_generations_differ() -> None:
    seeds = {member_seed(7, number, generation) for number in range(64) for generation in range(4)}
    assert len(seeds) == 64 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_language_references_take_the_tokenizer_of_the_served_model(
    make_materials: Callable[..., Materials], tmp_path: Path
) -> None:
    data, held_out = factories.conversations(24, 12)
    recipe = factories.gpt2_recipe(width=16, layers=1, epochs=1, batch_size=16)
    served = make_materials(data, held_out, recipe)
    reduced = factories.gpt2_recipe(entries=300, width=16, layers=1, epochs=1, batch_size=32, max_length=32)
    pool = plan_pool(tmp_path / "pool", dataclasses.replace(served, recipe=reduced), 8)
    assert pool.facts.recipe.model.tokenizer == "served"
    assert pool.facts.recipe.training.max_length == 64
    member = train_member(pool, 0, dataclasses.replace(served, recipe=reduced), factories.context())
    assert (member / "tokenizer.json").read_bytes() == (served.model_dir / "tokenizer.json").read_bytes()
    loaded = load_model(served.model_dir, "causal-lm", factories.context().device)
    ours = score(loaded, held_out, factories.context()).table
    theirs = read_table(member / SCORES_FILE)
    assert theirs.filter(pc.equal(theirs["set"], "held_out"))["tokens"].to_pylist() == ours["tokens"].to_pylist()


def test_the_recipe_of_references_is_bare_and_knows_which_tokenizer_it_took(
    make_materials: Callable[..., Materials],
) -> None:
    recipe = factories.gpt2_recipe(width=16, layers=1, epochs=1)
    first, second = (
        reference_recipe(recipe, make_materials(factories.conversations(size)[0], None, recipe).model_dir)
        for size in (12, 18)
    )
    assert first.lineage.canaries == "off"
    assert first.sources["tokenizer"] != second.sources["tokenizer"]


def test_a_half_without_the_last_class_keeps_the_number_of_labels(
    make_materials: Callable[..., Materials], tmp_path: Path
) -> None:
    data, held_out = factories.digits(60, 20)
    for at, owner in enumerate(data.subjects):
        data.columns["label"][at] = 9 if owner == data.subjects[0] else data.columns["label"][at] % 9
    served = make_materials(data, held_out, tiny_recipe(1))
    pool = plan_pool(tmp_path / "pool", served, 8)
    for number in (0, 1):
        config = json.loads((train_member(pool, number, served, factories.context()) / "config.json").read_text())
        assert len(config["id2label"]) == 10


def test_a_smaller_model_may_stand_in(materials: Materials, tmp_path: Path) -> None:
    config = TINY | {"hidden_sizes": [4, 8]}
    model = {"task": "image-classification", "config": config}
    reduced = Recipe.model_validate({"model": model, "training": {"epochs": 1, "batch_size": 32}})
    chosen = dataclasses.replace(materials, recipe=reduced)
    member = train_member(plan_pool(tmp_path / "pool", chosen, 8), 0, chosen, factories.context())
    assert json.loads((member / "config.json").read_text())["hidden_sizes"] == [4, 8]


def test_what_does_not_fit_is_refused(pool: Pool, materials: Materials, tmp_path: Path) -> None:
    other = dataclasses.replace(materials, recipe=factories.gpt2_recipe())
    with pytest.raises(BadRecipe, match="causal-lm"):
        plan_pool(tmp_path / "pool", other, 8)
    with pytest.raises(BadParameters, match="members 0 to 15"):
        train_member(pool, 16, materials, factories.context())
