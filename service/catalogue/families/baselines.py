"""Baselines that every user expects, for classifiers first, and the controls of plain gradient ascent."""

from typing import Literal, Self

from pydantic import Field, model_validator

from service.catalogue.parameters import EditParams, ForgetPassesParams, RetainEpochsParams
from service.catalogue.specs import ALL_TASKS, MethodSpec

_CLASSIFIERS: tuple[Literal["image-classification"], Literal["text-classification"]] = (
    "image-classification",
    "text-classification",
)


class FinetuneParams(RetainEpochsParams):
    """Fine-tuning on retained records: `visits` plays no part, forgotten records are never met."""


class L1SparseParams(RetainEpochsParams):
    """Fine-tuning on retained records under an L1 penalty that fades; `visits` plays no part."""

    penalty: float = Field(5e-4, ge=0, le=1, description="first weight of the L1 norm of all weights, nats per unit")


class RandomLabelParams(RetainEpochsParams):
    """Wrong labels for forgotten records. `bound` as in `ForgetPassesParams`."""

    bound: Literal["record", "none"] = Field("record", description="stop at the loss of unseen records, or never")


class BadTeacherParams(ForgetPassesParams):
    """Two teachers: an untrained one for forgotten records, the served model for retained ones."""

    temperature: float = Field(1.0, ge=1, le=20, description="softens both teachers and the student")


class ScrubParams(EditParams):
    """SCRUB: `rounds` passes over retained records, `max_rounds` passes over forgotten ones between the first of them.

    `rewind` is SCRUB+R: of the states after each round the one is kept at which forgotten records lose most nearly
    what unseen records of the same classes lose.
    """

    rounds: int = Field(6, ge=2, le=100, description="rounds, each a min step over retained records")
    max_rounds: int = Field(3, ge=1, le=99, description="rounds that begin with a max step; less than `rounds`")
    round_epochs: float = Field(1.0, gt=0, le=10, description="passes over the retained records in each round")
    temperature: float = Field(4.0, ge=1, le=20, description="softens teacher and student")
    gamma: float = Field(1.0, ge=0, le=100, description="weight of the cross-entropy of retained records")
    alpha: float = Field(0.5, ge=0, le=100, description="weight of the divergence on retained records")
    bound: Literal["record", "none"] = Field("record", description="stop at the loss of unseen records, or never")
    rewind: bool = Field(True, description="keep the state nearest to unseen records instead of the last")

    @model_validator(mode="after")
    def _ends_on_repair(self) -> Self:
        if self.max_rounds >= self.rounds:
            raise ValueError("max_rounds must be less than rounds, so that the run ends on retained records alone")
        return self


class ControlledAscentParams(ForgetPassesParams):
    """Gradient ascent on forgotten records alone, with three controls; `retain_batch` plays no part.

    They are the bound, `share`, and the way back towards the served weights until `tolerance` holds.
    """

    share: float = Field(1.0, gt=0, le=1, description="share of the weights that may change, from the output backwards")
    tolerance: float | None = Field(
        0.05, ge=0, le=100, description="most that the mean retained loss may rise by, nats; None: however much"
    )


BASELINES: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="finetune",
        target="workers.methods.finetune:finetune",
        params=FinetuneParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="go on training on retained records alone",
        guarantee="none: judged by measurement",
        source="the first baseline of every unlearning paper, for example Golatkar et al. 2020, arXiv 1911.04933",
    ),
    MethodSpec(
        name="l1_sparse",
        target="workers.methods.l1_sparse:l1_sparse",
        params=L1SparseParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="go on training on retained records under an L1 penalty that fades to nothing",
        guarantee="none: judged by measurement",
        source="Jia et al. 2023, arXiv 2304.04934",
    ),
    MethodSpec(
        name="random_label",
        target="workers.methods.random_label:random_label",
        params=RandomLabelParams,
        kind="approximate",
        tasks=_CLASSIFIERS,
        needs=(),
        summary="teach wrong labels for forgotten records beside the true ones of retained records",
        guarantee="none: judged by measurement",
        source="Graves et al. 2021, arXiv 2010.10981 (amnesiac relabelling), with a per-record bound",
    ),
    MethodSpec(
        name="bad_teacher",
        target="workers.methods.bad_teacher:bad_teacher",
        params=BadTeacherParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="distil an untrained network on forgotten records and the served model on retained ones",
        guarantee="none: judged by measurement",
        source="Chundawat et al. 2023, arXiv 2205.08096, with a per-record bound",
    ),
    MethodSpec(
        name="scrub",
        target="workers.methods.scrub:scrub",
        params=ScrubParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("held_out",),
        summary="move away from the served model on forgotten records, stay with it on retained ones, rewind",
        guarantee="none: judged by measurement",
        source="Kurmanji et al. 2023, arXiv 2302.09880 (SCRUB and SCRUB+R), with a per-record bound",
    ),
    MethodSpec(
        name="controlled_ascent",
        target="workers.methods.controlled_ascent:controlled_ascent",
        params=ControlledAscentParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="ascend on forgotten records up to a bound, then go back as far as retained records ask for",
        guarantee="none: judged by measurement",
        source="Wang et al. 2024, arXiv 2406.09179 (controls of gradient ascent, mixing with the served weights)",
    ),
)
