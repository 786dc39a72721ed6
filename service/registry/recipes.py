"""Recipes as the registry keeps them: checked before anything is stored, so that no job fails hours later."""

from pathlib import Path
from typing import Any

from service.catalogue.recipes import read_recipe as read
from service.errors import BadRecipe
from service.registry.files import digest_directory, manifest_digest


def read_recipe(path: Path, task: str) -> dict[str, Any]:
    """The recipe file as the dict that a training record would hold. Raises BadRecipe, one line with file and key."""
    recipe = read(path, lambda directory: manifest_digest(digest_directory(directory)))
    if recipe.model.task != task:
        raise BadRecipe(f"{path}: model.task is {recipe.model.task!r}, but the model is registered for {task!r}")
    return recipe.model_dump(mode="json")
