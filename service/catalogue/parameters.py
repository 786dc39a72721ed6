"""Parameters of the unlearning methods: defaults of the papers, ranges, and no unknown names."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RetrainParams(_Params):
    """`retrain` follows the recipe; there is nothing to choose."""


class NablaTauParams(_Params):
    """`nabla_tau` (2403.14339): hinge to the held-out level, weight alpha decaying to 0."""

    alpha_floor: float = Field(0.1, ge=0, le=1, description="smallest initial weight of the forget term")
    hinge: Literal["record", "batch"] = Field("record", description="batch is the official rule")
    passes: int = Field(20, ge=1, le=500, description="passes over the forget set")
    forget_batch: int = Field(64, ge=1)
    retain_batch: int = Field(64, ge=1)
    learning_rate: float | None = Field(None, gt=0, description="default by task")
    refresh: int = Field(2, ge=1, description="forget passes between two looks at the held-out level")
    repair_steps: int = Field(20, ge=0, description="retain-only steps at the end")


class NegativeGradientPlusParams(_Params):
    """`negative_gradient_plus`: alpha CE(R) - (1 - alpha) CE(F), the forget term capped per record."""

    alpha: float = Field(0.95, gt=0, lt=1, description="weight of the retain term")
    epochs: float = Field(2.0, gt=0, le=50, description="passes over the retain set")
    cap_deviations: float = Field(0.0, ge=0, description="cap = held-out mean + this many standard deviations")
    forget_passes: int = Field(20, ge=1, description="no forgotten record is ascended more often than this")
    batch_size: int = Field(64, ge=1)
    learning_rate: float | None = Field(None, gt=0, description="default by task")
