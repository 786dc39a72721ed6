"""Parameters of the unlearning methods: types, ranges and defaults, without torch.

None means "from the recipe": methods that descend from the served weights take the batch size of its training and two
thirds of its peak learning rate, since a rate that trained the model is of the right size to move it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MethodParams(BaseModel):
    """Base of all parameter models: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RetrainParams(MethodParams):
    """Retraining has none: the recipe decides."""


class ReplayParams(MethodParams):
    """Replay. `start` "beginning" repeats the whole run: the same bytes at the full cost, for a check."""

    start: Literal["newest", "beginning"] = Field("newest", description="checkpoint to go on from")


class ShardedParams(MethodParams):
    """Sharded. `start` "beginning" trains the affected shards anew: the same bytes, without their earlier states."""

    start: Literal["newest", "beginning"] = Field("newest", description="state to go on from")


class AdapterParams(MethodParams):
    """Adapter has none: the recipe decides."""


class RefitParams(MethodParams):
    """Refit has none: the recipe decides."""


class DescentParams(MethodParams):
    """What methods that start from the served weights have in common.

    `passes` counts visits of each forgotten record (None: four tenths of the recipe's epochs, at least 3; 12 without
    a recipe); `min_steps` raises them for small forget sets, to no more than that many visits.
    """

    target: Literal["quantile", "mean"] = Field(
        "quantile",
        description="loss each forgotten record is brought to: the selection loss of the same rank, or their mean",
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak rate of AdamW")
    passes: int | None = Field(None, ge=1, le=1000, description="visits of each forgotten record")
    min_steps: int = Field(36, ge=1, le=10_000, description="least number of steps")
    forget_batch: int | None = Field(None, ge=1, le=100_000)
    retain_batch: int | None = Field(None, ge=1, le=100_000)
    refresh: int = Field(2, ge=1, le=1000, description="passes between two measurements of the selection loss")


class NablaTauParams(DescentParams):
    """nabla-tau (2403.14339). `alpha_scale` is the paper's 5/3, 0.5 its fixed weight for text."""

    hinge: Literal["record", "batch"] = Field("record", description="per record, or the paper's batch mean")
    alpha_scale: float = Field(5 / 3, ge=0, le=100, description="first weight of the forget term per |F|/|D|")
    alpha_floor: float = Field(0.5, ge=0, le=0.9, description="least first weight of the forget term")


class NegativeGradientPlusParams(DescentParams):
    """Capped NegGrad+."""

    alpha: float | None = Field(
        None, gt=0, lt=1, description="weight of the retain term; default 0.7 for classifiers, 0.85 for language models"
    )
    cap_deviations: float = Field(
        0.0, ge=0, le=10, description="standard deviations of the selection losses added to the cap"
    )
