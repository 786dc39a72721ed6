"""Recipes: what is accepted, what is refused in one line, and a digest that does not depend on where files lie."""

import shutil
from pathlib import Path

import pytest

from service.catalogue.recipes import parse_recipe
from service.errors import BadRecipe
from tests.workers.factories import conversations
from workers.modeling.recipe import load_recipe, recipe_digest
from workers.modeling.tokenizers import train_tokenizer

GOOD = """
[model]
task = "image-classification"
config = { model_type = "resnet", num_channels = 1 }
[training]
epochs = 2
"""
TEXT = '[model]\ntask = "causal-lm"\nconfig = {{ model_type = "gpt2" }}\ntokenizer = "{0}"\n'


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    training = load_recipe(write(tmp_path, GOOD)).training
    assert (training.epochs, training.batch_size, training.learning_rate) == (2, 128, 1e-3)
    assert (training.optimizer, training.schedule, training.precision) == ("adamw", "cosine", "fp32")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "epoch = 3\n", "unknown key training.epoch"),
        (GOOD.replace("epochs = 2", "epochs = 0"), "training.epochs"),
        (GOOD.replace("epochs = 2", "learning_rate = nan"), "training.learning_rate"),
        (GOOD + "[sources]\nbase = 'x'\n", "unknown key sources"),
        (GOOD + "[lineage]\ncanaries = 0.06\n", "lineage.canaries"),
        (GOOD + "[lineage]\ncheckpoints = [0.5, 1.5]\n", "lineage.checkpoints"),
        (GOOD + "[lineage]\nstorage = '2 gigs'\n", "lineage.storage: '2 gigs' is no size"),
        (GOOD + "[lineage]\ncanary = 0\n", "unknown key lineage.canary"),
        (GOOD + "[sharding]\nshards = -1\n", "sharding.shards"),
        (GOOD + "[adapters]\ncohorts = 2\n", "adapters need model.base"),
        (TEXT.format("t") + "[sharding]\nshards = 2\n", "sharding fits classifiers"),
        (GOOD.replace("config", "base = 'b'\nconfig"), "either config or base"),
        (GOOD.replace("num_channels = 1 }", "num_channels = 1 }\ntokenizer = { train = 300 }"), "does not fit"),
        (TEXT.format("nowhere"), "no directory"),
        ("[model", "not valid TOML"),
        ("[training]\n", "model"),
    ],
)
def test_a_bad_recipe_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadRecipe) as caught:
        load_recipe(path)
    assert told in caught.value.detail
    assert str(path) in caught.value.detail
    assert "\n" not in caught.value.detail


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"none\.toml"):
        load_recipe(tmp_path / "none.toml")


def test_what_is_switched_off_is_off_however_it_is_written(tmp_path: Path) -> None:
    off = GOOD + '[lineage]\ncheckpoints = "none"\ncanaries = 0\nreserve = false\n[sharding]\nshards = 0\n'
    recipe = load_recipe(write(tmp_path, off))
    assert (recipe.lineage.checkpoints, recipe.lineage.canaries, recipe.lineage.reserve) == ("off", "off", "off")
    assert not recipe.sharding.on


def test_a_switch_that_is_newer_than_a_model_changes_no_digest_until_it_is_used(tmp_path: Path) -> None:
    """Replay and the check of provenance compare digests of recipes that were taken before there was this switch."""
    recipe = load_recipe(write(tmp_path, GOOD))
    assert set(recipe.model_dump(mode="json")["lineage"]) == {"checkpoints", "canaries", "reserve", "storage"}
    off = load_recipe(write(tmp_path, GOOD + "[lineage]\nduplicates = false\n"))
    assert off.lineage.duplicates == "off"
    assert recipe_digest(off) != recipe_digest(recipe)
    assert parse_recipe(off.model_dump(mode="json")) == off
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    with pytest.raises(BadRecipe, match=r"lineage\.duplicates"):
        load_recipe(write(tmp_path, GOOD + '[lineage]\nduplicates = "sometimes"\n'))


def test_lineage_is_on_by_default_and_off_in_a_bare_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert (recipe.lineage.checkpoints, recipe.lineage.canaries, recipe.lineage.storage) == ("auto", 0.01, 2 << 30)
    bare = recipe.bare().lineage
    assert (bare.checkpoints, bare.canaries, bare.reserve) == ("off", "off", "off")


def test_paths_are_relative_to_the_recipe_and_the_digest_is_of_their_content(tmp_path: Path) -> None:
    first = tmp_path / "a"
    first.mkdir()
    train_tokenizer(conversations(3)[0], 300, 64).save_pretrained(str(first / "tok"))
    recipe = load_recipe(write(first, TEXT.format("tok")))
    assert recipe.model.tokenizer == str((first / "tok").resolve())
    shutil.copytree(first, tmp_path / "b")
    moved = load_recipe(tmp_path / "b" / "recipe.toml")
    assert recipe_digest(moved) == recipe_digest(recipe)
    (tmp_path / "b" / "tok" / "tokenizer_config.json").write_text("{}")
    assert recipe_digest(load_recipe(tmp_path / "b" / "recipe.toml")) != recipe_digest(recipe)


def test_a_recipe_survives_json(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    again = parse_recipe(recipe.model_dump(mode="json"))
    assert again == recipe
    assert recipe_digest(again) == recipe_digest(recipe)
