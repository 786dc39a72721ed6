"""Methods that bring each forgotten record to a target loss and stop there (workers/modeling/descent.py)."""

from typing import Literal

from pydantic import Field

from service.catalogue.parameters import MethodParams
from service.catalogue.specs import ALL_TASKS, MethodSpec


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


DESCENT: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="nabla_tau",
        target="workers.methods.nabla_tau:nabla_tau",
        params=NablaTauParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("held_out",),
        summary="raise each forgotten record's loss to the held-out level, keep the rest",
        guarantee="none: judged by measurement",
        source="Trippa et al. 2024, arXiv 2403.14339, with a per-record hinge, rank targets and an alpha floor",
    ),
    MethodSpec(
        name="negative_gradient_plus",
        target="workers.methods.negative_gradient_plus:negative_gradient_plus",
        params=NegativeGradientPlusParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("held_out",),
        summary="descend on retained and ascend on forgotten records, up to a cap",
        guarantee="none: judged by measurement",
        source="Kurmanji et al. 2023, arXiv 2302.09880 (NegGrad+), with a per-record cap",
    ),
)
