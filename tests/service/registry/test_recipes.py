"""The registry's reading of a recipe agrees with the engine's."""

from pathlib import Path

import pytest

from service.catalogue.recipes import Recipe
from service.errors import BadRecipe
from service.registry.recipes import read_recipe
from workers.modeling.recipe import load_recipe, recipe_digest

TEXT = """
[model]
task = "causal-lm"
config = { model_type = "gpt2", n_layer = 2 }
tokenizer = "words"
[training]
epochs = 3
learning_rate = 5e-4
[lineage]
canaries = 0
"""


def test_what_is_kept_is_the_recipe_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    file = tmp_path / "r.toml"
    file.write_text(TEXT)
    kept = Recipe.model_validate(read_recipe(file, "causal-lm"))
    assert kept == load_recipe(file)
    assert recipe_digest(kept) == recipe_digest(load_recipe(file))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("epochs", "epoch"), r"r\.toml: unknown key training\.epoch"),
        (("[lineage]", "[heritage]"), r"r\.toml: unknown key heritage"),
        (("causal-lm", "text-classification"), "is registered for 'causal-lm'"),
        (('"words"', '"nothing"'), r"r\.toml: model\.tokenizer: no directory"),
        (("[model]", "[model"), r"r\.toml: not valid TOML"),
        (("canaries = 0", "canaries = 0.5"), r"r\.toml: lineage\.canaries"),
        (("epochs = 3", "epochs = 'many'"), r"r\.toml: training\.epochs: Input should be a valid integer"),
        (("[training]", "[[training]]"), r"r\.toml: training: Input should be"),
    ],
)
def test_what_the_engine_would_refuse_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    (tmp_path / "words").mkdir()
    file = tmp_path / "r.toml"
    file.write_text(TEXT.replace(*change))
    with pytest.raises(BadRecipe, match=said):
        read_recipe(file, "causal-lm")
    with pytest.raises(BadRecipe, match="missing"):
        read_recipe(tmp_path / "missing.toml", "causal-lm")
