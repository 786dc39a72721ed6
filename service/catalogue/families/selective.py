"""Methods that choose weights: those that matter for forgotten records, or those whose loss retained ones can bear."""

from typing import Literal

from pydantic import Field

from service.catalogue.families.baselines import RandomLabelParams
from service.catalogue.parameters import MethodParams, RetainEpochsParams
from service.catalogue.specs import ALL_TASKS, MethodSpec


class SalunParams(RandomLabelParams):
    """Wrong labels, learnt by the weights alone on which forgotten records' loss depends most."""

    density: float = Field(0.5, gt=0, le=1, description="share of the weights that may change")


class SfronParams(RetainEpochsParams):
    """SFRon. SGD, because the weight of an ascent step means nothing to an optimiser that rescales gradients.

    `visits` counts ascent steps in visits of each forgotten record; `bound` as in `ForgetPassesParams`.
    """

    optimizer: Literal["adamw", "sgd"] = Field("sgd", description="SGD with momentum 0.9, or AdamW")
    forget_every: int = Field(5, ge=1, le=1000, description="steps on retained records for each ascent step")
    ascent: float = Field(25.0, gt=0, le=10_000, description="first weight of an ascent step; falls as a cosine to 0")
    adaptivity: float = Field(
        0.5, ge=0, le=5, description="lambda: weight of a record is its loss to the power -lambda"
    )
    saliency: float = Field(
        1.0, ge=0, le=1000, description="gamma: least ratio of Fisher information, forget to retain"
    )
    clip: float = Field(7.0, gt=0, le=1000, description="largest norm of the gradient of an ascent step")
    sample: int = Field(256, ge=1, le=100_000, description="records of each kind whose Fisher information is taken")
    bound: Literal["record", "none"] = Field("record", description="stop at the loss of unseen records, or never")


class SsdParams(MethodParams):
    """Selective synaptic dampening: no steps, no learning rate."""

    selection: float = Field(
        10.0,
        gt=0,
        le=10_000,
        description="alpha: weights whose information on forgotten records is so many times larger",
    )
    dampening: float = Field(1.0, ge=0, le=100, description="lambda: they are scaled by lambda times the inverse ratio")
    sample: int = Field(256, ge=1, le=100_000, description="records of each kind whose Fisher information is taken")


class MaskedSmallGradientsParams(RetainEpochsParams):
    """Masked small gradients: `visits` plays no part, forgotten records only say which weights are drawn anew."""

    epochs: float = Field(5.0, gt=0, le=100, description="passes over the retained records")
    renewed: float = Field(0.3, gt=0, lt=1, description="share of each kernel or matrix that is drawn anew")
    kept_step: float = Field(0.1, ge=0, le=1, description="what part of its step each other weight of them takes")


class ConvolutionTransposeParams(RetainEpochsParams):
    """Transposed convolutions: `visits` plays no part, forgotten records are never met."""

    epochs: float = Field(3.0, gt=0, le=100, description="passes over the retained records")


SELECTIVE: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="salun",
        target="workers.methods.salun:salun",
        params=SalunParams,
        kind="approximate",
        tasks=("image-classification", "text-classification"),
        needs=(),
        summary="teach wrong labels to the weights on which forgotten records depend most, and to no others",
        guarantee="none: judged by measurement",
        source="Fan et al. 2024, arXiv 2310.12508, with labels that are never right and a per-record bound",
    ),
    MethodSpec(
        name="sfron",
        target="workers.methods.sfron:sfron",
        params=SfronParams,
        kind="approximate",
        tasks=("image-classification", "text-classification"),
        needs=(),
        summary="ascend now and then by the weights that matter more to forgotten records, repair at every step",
        guarantee="none: judged by measurement",
        source="Huang et al. 2024, arXiv 2409.19732, with a per-record bound",
    ),
    MethodSpec(
        name="ssd",
        target="workers.methods.ssd:ssd",
        params=SsdParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="dampen weights that carry far more information on forgotten records than on the data",
        guarantee="none: judged by measurement",
        source="Foster et al. 2024, arXiv 2308.07707, Fisher information taken record by record",
    ),
    MethodSpec(
        name="masked_small_gradients",
        target="workers.methods.masked_small_gradients:masked_small_gradients",
        params=MaskedSmallGradientsParams,
        kind="approximate",
        tasks=("image-classification", "text-classification"),
        needs=(),
        summary="draw anew the weights with the smallest gradients, then repair on retained records",
        guarantee="none: judged by measurement",
        source="an entry of the NeurIPS 2023 challenge, as evaluated by Cadet et al. 2024, arXiv 2410.01276",
    ),
    MethodSpec(
        name="convolution_transpose",
        target="workers.methods.convolution_transpose:convolution_transpose",
        params=ConvolutionTransposeParams,
        kind="approximate",
        tasks=("image-classification",),
        needs=(),
        summary="swap the two axes of every convolution kernel, then repair on retained records",
        guarantee="none: judged by measurement",
        source="an entry of the NeurIPS 2023 challenge, as evaluated by Cadet et al. 2024, arXiv 2410.01276",
    ),
)
