"""What parameter models of unlearning methods have in common, without torch; each family holds its own.

None means "from the recipe": methods that go on from the served weights take the batch size of its training and two
thirds of its peak learning rate, since a rate that trained the model is of the right size to move it. A paper's rate
belongs to the paper's network and optimiser and is named in its method's docstring.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MethodParams(BaseModel):
    """Base of all parameter models: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EditParams(MethodParams):
    """Methods that take optimiser steps from the served weights on (workers/modeling/editing.py)."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum 0.9")
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak rate; default from the recipe")
    forget_batch: int | None = Field(None, ge=1, le=100_000, description="default: the recipe's batch size")
    retain_batch: int | None = Field(None, ge=1, le=100_000, description="default: the recipe's batch size")


class RetainEpochsParams(EditParams):
    """Methods whose length is counted in passes over the retained records.

    Each step has a batch of them; forgotten records come in turn beside it, each seen at most `visits` times, so that
    a small forget set is not met hundreds of times an epoch.
    """

    epochs: float = Field(1.0, gt=0, le=100, description="passes over the retained records")
    visits: int = Field(10, ge=1, le=1000, description="most visits of each forgotten record")


class ForgetPassesParams(EditParams):
    """Methods whose length is counted in visits of each forgotten record, with a batch of retained ones in each step.

    `bound` "record": a record adds nothing once its loss has reached that of unseen records (needs a held-out set), and
    the run ends when all have. "none" is the published, unbounded form.
    """

    passes: int = Field(10, ge=1, le=1000, description="visits of each forgotten record")
    bound: Literal["record", "none"] = Field("record", description="stop at the loss of unseen records, or never")


class LowRankParams(EditParams):
    """Methods that can train a low-rank adapter in place of all weights (workers/modeling/low_rank.py)."""

    lora_rank: int | None = Field(None, ge=1, le=1024, description="rank of an adapter; default: train all weights")
