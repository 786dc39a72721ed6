"""Training recipes: the TOML a user writes, as checked models. No torch: registration reads them, and the engine.

A recipe names files (a tokenizer, a base model); their content digests are kept in `sources`, so that the recipe's
own digest depends on what was used and not on where it lay.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from service.errors import BadRecipe

_OFF = ("off", "none", "", 0, False)
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


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
    """How it is trained. `learning_rate` is the peak of the schedule, `max_length` counts tokens.

    A step takes `accumulation` batches of `batch_size` records; each adds its mean gradient over `accumulation`.
    """

    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(128, ge=1, le=1_000_000)
    accumulation: int = Field(1, ge=1, le=10_000)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, lt=100, allow_inf_nan=False)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, lt=100, allow_inf_nan=False)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(0, ge=0, lt=2**63)
    augmentation: Literal["none", "flip-crop"] = "none"
    max_length: int = Field(128, ge=2, le=1_000_000)


def _switched(value: Any) -> Any:
    """Every way in which people write "off", as one."""
    return "off" if not isinstance(value, list | dict) and value in _OFF else value


def _size(value: Any) -> Any:
    """Bytes from a number or from text such as "2GiB"."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]iB|B|)\s*", value)
    if found is None:
        raise ValueError(f"{value!r} is no size: write for example 500MiB or 2GiB")
    return int(float(found[1]) * _UNITS[found[2]])


_Share = Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)]
_Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class LineageSection(_Section):
    """What training records about itself, for exact methods and honest verification.

    `checkpoints`: fractions of the first epoch after which the state is kept ("auto" chooses them), beside one after
    each epoch, as far as `storage` (bytes) reaches. `canaries`: share of service-owned records planted among the
    data. `reserve`: share of the subjects never trained on ("auto": 3 % where no held-out set is given).
    `duplicates`: whether records that say nearly the same are looked for.
    """

    checkpoints: Annotated[Literal["auto", "off"] | tuple[_Fraction, ...], BeforeValidator(_switched)] = "auto"
    canaries: Annotated[Literal["off"] | Annotated[float, Field(gt=0, le=0.05)], BeforeValidator(_switched)] = 0.01
    reserve: Annotated[Literal["auto", "off"] | _Share, BeforeValidator(_switched)] = "auto"
    storage: Annotated[int, BeforeValidator(_size), Field(ge=0)] = 2 << 30
    duplicates: Annotated[Literal["auto", "off"], BeforeValidator(_switched)] = "auto"

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a switch that is newer than some models: their training records name recipes by digest."""
        content: dict[str, Any] = write(self)
        if content.get("duplicates") == "auto":
            del content["duplicates"]
        return content


class ShardingSection(_Section):
    """SISA training (Bourtoule et al. 2021): `shards` models on disjoint subjects, each grown over `slices`."""

    shards: Annotated[int, BeforeValidator(lambda value: 1 if value in _OFF else value), Field(ge=1, le=1000)] = 1
    slices: Annotated[int, BeforeValidator(lambda value: 1 if value in _OFF else value), Field(ge=1, le=1000)] = 1

    @property
    def on(self) -> bool:
        """Whether there is more than one part to train."""
        return self.shards * self.slices > 1


class AdaptersSection(_Section):
    """LoRA adapters (Hu et al. 2022), one for each cohort of subjects, on the frozen weights of `model.base`."""

    cohorts: int = Field(8, ge=1, le=1000)
    rank: int = Field(8, ge=1, le=1024)
    alpha: float = Field(16, gt=0, allow_inf_nan=False)


class Recipe(_Section):
    """A whole recipe. `sources` maps "base" and "tokenizer" to digests of local directories; no user writes it."""

    model: ModelSection
    training: TrainingSection = TrainingSection()
    lineage: LineageSection = LineageSection()
    sharding: ShardingSection = ShardingSection()
    adapters: AdaptersSection | None = None
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.sharding.on and self.model.task == "causal-lm":
            raise ValueError("sharding fits classifiers; for a language model use adapters on a base, or replay")
        if self.adapters is None:
            return self
        if self.model.base is None:
            raise ValueError("adapters need model.base, the weights that they are put on")
        if self.sharding.on:
            raise ValueError("give either sharding or adapters")
        return self

    @property
    def data_tokenizer(self) -> bool:
        """Whether the tokenizer is made from the training data, so that it too has to be made without a record."""
        return isinstance(self.model.tokenizer, TokenizerTraining)

    def bare(self) -> "Recipe":
        """One model by the same rules that leaves nothing behind but itself: what a reference model is made by."""
        lineage = LineageSection(checkpoints="off", canaries="off", reserve="off")
        return self.model_copy(update={"lineage": lineage, "sharding": ShardingSection(), "adapters": None})


def parse_recipe(content: Any, name: str = "recipe") -> Recipe:
    """A recipe from parsed TOML or from the JSON kept in a training record; BadRecipe names what is wrong."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise BadRecipe(f"{name}: {_first_problem(error)}") from error


def read_recipe(path: Path, digest_of: Callable[[Path], str]) -> Recipe:
    """Read and check a recipe file; paths in it are relative to its folder. `digest_of` digests a directory.

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
    return _locate(parse_recipe(content, str(path)), path.absolute().parent, str(path), digest_of)


def _locate(recipe: Recipe, folder: Path, name: str, digest_of: Callable[[Path], str]) -> Recipe:
    """Absolute paths and content digests for what the recipe names on disk."""
    found: dict[str, str] = {}
    paths: dict[str, str] = {}
    for key in ("base", "tokenizer"):
        value = getattr(recipe.model, key)
        if not isinstance(value, str):
            continue
        path = folder / Path(value).expanduser()
        if path.is_dir():
            found[key], paths[key] = digest_of(path), str(path.resolve())
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
