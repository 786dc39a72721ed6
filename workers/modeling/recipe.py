"""Recipes as the engine uses them: read from a file, and identified by a digest."""

from pathlib import Path

from service.catalogue.recipes import Recipe, read_recipe
from workers.modeling.directories import directory_digest, sha256_json


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file. Raises BadRecipe, one line that names the file and the key."""
    return read_recipe(path, directory_digest)


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of the recipe's canonical JSON, with local paths replaced by the digests of what they hold."""
    content = recipe.model_dump(mode="json", exclude={"sources"})
    for key, digest in recipe.sources.items():
        content["model"][key] = f"sha256:{digest}"
    return sha256_json(content)
