"""Recipes as the registry keeps them: checked before anything is stored, so that no job fails hours later."""

import json
from pathlib import Path
from typing import Any

from service.catalogue.recipes import Recipe, parse_recipe
from service.catalogue.recipes import read_recipe as read
from service.errors import BadRecipe
from service.registry.directories import RECORD
from service.registry.files import digest_directory, manifest_digest
from service.registry.models import Model, Version


def read_recipe(path: Path, task: str) -> dict[str, Any]:
    """The recipe file as the dict that a training record would hold. Raises BadRecipe, one line with file and key."""
    recipe = read(path, lambda directory: manifest_digest(digest_directory(directory)))
    if recipe.model.task != task:
        raise BadRecipe(f"{path}: model.task is {recipe.model.task!r}, but the model is registered for {task!r}")
    return recipe.model_dump(mode="json")


def recipe_of(model: Model, version: Version) -> Recipe | None:
    """How a version is trained: the recipe given at registration, else that of its training record; None: unknown."""
    if model.recipe:
        return parse_recipe(model.recipe, "the recipe of the model")
    record = Path(version.path) / RECORD
    content = json.loads(record.read_bytes()).get("recipe") if record.is_file() else None
    return parse_recipe(content, f"{record}: recipe") if content else None
