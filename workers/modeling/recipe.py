"""Training recipes: the TOML a user writes, checked, and the digest that identifies it.

A recipe names files (a tokenizer, a base model); their content digests are kept in `sources`, so that the recipe's
own digest depends on what was used and not on where it lay.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import BadRecipe
from workers.modeling.directories import directory_digest, sha256_json

TASKS = ("image-classification", "text-classification", "causal-lm")
_OFF = ("off", "none", "", 0, False, None)
_LATER = {"lineage": ("checkpoints", "canaries", "reserve", "storage"), "sharding": ("shards", "slices")}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerTraining(_Section):
    """A byte-level BPE tokenizer trained on the training records themselves."""

    train: int = Field(ge=257, le=1_000_000, description="entries of the vocabulary, the 256 bytes included")


class ModelSection(_Section):
    """What is trained: fresh weights by `config`, or the weights of `base`."""

    task: Literal["image-classification", "text-classification", "causal-lm"]
    config: dict[str, Any] | None = None
    base: str | None = None
    tokenizer: str | TokenizerTraining | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ModelSection":
        if (self.config is None) == (self.base is None):
            raise ValueError("give either config or base")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs a model_type")
        if self.task == "image-classification" and self.tokenizer is not None:
            raise ValueError("a tokenizer does not fit image-classification")
        if self.task != "image-classification" and self.config is not None and self.tokenizer is None:
            raise ValueError("a text model from config needs a tokenizer")
        return self


class TrainingSection(_Section):
    """How it is trained. `learning_rate` is the peak of the schedule, `max_length` counts tokens."""

    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(128, ge=1, le=1_000_000)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, lt=100, allow_inf_nan=False)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, lt=100, allow_inf_nan=False)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(0, ge=0, lt=2**63)
    augmentation: Literal["none", "flip-crop"] = "none"
    max_length: int = Field(128, ge=2, le=1_000_000)


class Recipe(_Section):
    """A whole recipe. `sources` maps "base" and "tokenizer" to digests of local directories; no user writes it."""

    model: ModelSection
    training: TrainingSection = TrainingSection()
    lineage: dict[str, Any] = Field(default_factory=dict)
    sharding: dict[str, Any] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _only_what_is_built(self) -> "Recipe":
        for name, known in _LATER.items():
            for key, value in getattr(self, name).items():
                if key not in known:
                    raise ValueError(f"unknown key {name}.{key}")
                if value not in _OFF:
                    raise ValueError(f"{name}.{key} = {value!r} has to wait until a later release: leave it out")
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file; paths in it are relative to its folder.

    Raises BadRecipe, one line that names the file and the key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path}: cannot be read ({type(error).__name__}): give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{path}: not valid TOML: {error}") from error
    if "sources" in content:
        raise BadRecipe(f"{path}: unknown key sources: remove it")
    return _locate(parse_recipe(content, str(path)), path.absolute().parent, str(path))


def parse_recipe(content: Any, name: str = "recipe") -> Recipe:
    """A recipe from parsed TOML or from the JSON kept in a training record; BadRecipe names what is wrong."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise BadRecipe(f"{name}: {_first_problem(error)}") from error


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 of the recipe's canonical JSON, with local paths replaced by the digests of what they hold."""
    content = recipe.model_dump(mode="json", exclude={"sources"})
    for key, digest in recipe.sources.items():
        content["model"][key] = f"sha256:{digest}"
    return sha256_json(content)


def _locate(recipe: Recipe, folder: Path, name: str) -> Recipe:
    """Absolute paths and content digests for what the recipe names on disk."""
    found: dict[str, str] = {}
    paths: dict[str, str] = {}
    for key in ("base", "tokenizer"):
        value = getattr(recipe.model, key)
        if not isinstance(value, str):
            continue
        path = folder / Path(value).expanduser()
        if path.is_dir():
            found[key], paths[key] = directory_digest(path), str(path.resolve())
        elif key == "tokenizer" or value.startswith((".", "/", "~")):
            raise BadRecipe(f"{name}: model.{key}: no directory {path}")
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=paths), "sources": found})


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
