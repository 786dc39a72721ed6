"""Methods of the papers that the service began with, and of those they build on."""

from typing import Literal

from pydantic import Field

from service.catalogue.families.influence import MoveParams
from service.catalogue.parameters import EditParams, ForgetPassesParams, MethodParams, RetainEpochsParams
from service.catalogue.specs import ALL_TASKS, MethodSpec


class FirstEpochAscentParams(MoveParams):
    """First-epoch gradient ascent (2406.09391)."""

    layers: Literal["embedding", "all", "last_blocks"] = Field("embedding", description="what is changed")
    blocks: int = Field(2, ge=1, le=1000, description="how many blocks last_blocks means")
    mode: Literal["iterative", "fuzzy"] = Field(
        "iterative", description="record by record, or all at once together with their near matches"
    )
    similarity: float = Field(0.8, ge=0.8, le=1, description="from which on a text is a near match")
    score: Literal["activation", "hessian", "none"] = Field(
        "activation", description="influence by which records are put in order"
    )
    damping: float = Field(0.01, gt=0, le=1e3, allow_inf_nan=False, description="of the Hessian, for its score")
    length: float = Field(
        1e-3, gt=0, le=10, description="first try of a move, in norms of the group's weights; without a bound all of it"
    )
    applications: int = Field(1, ge=1, le=20, description="how often each record is gone through")
    epoch: int = Field(1, ge=1, le=10_000, description="the epoch at whose end gradients are taken; the paper's is 1")


class PerturbationParams(RetainEpochsParams):
    """Perturb K of the weights, then repair (2401.04385). `share` is the paper's k below 1."""

    share: float = Field(0.01, gt=0, le=1, description="share of the weights that are perturbed")
    noise: float = Field(0.5, ge=0, le=100, allow_inf_nan=False, description="standard deviation, see noise_unit")
    noise_unit: Literal["tensor", "absolute"] = Field(
        "tensor", description="root mean squares of the tensor's own weights, or the paper's absolute number"
    )
    divergence_weight: float = Field(
        0.0,
        ge=0,
        le=10,
        description="of the Jensen-Shannon term that keeps old answers on forgotten records; paper 0.1",
    )


class TopKPerturbationParams(PerturbationParams):
    """Top-K: the weights that the loss of the forgotten records depends on most."""


class RandomKPerturbationParams(PerturbationParams):
    """Random-k: weights drawn at random."""


class RewindParams(EditParams):
    """Rewind-to-Delete (2409.09778); forgotten records are never met, so that their batch plays no part."""

    fraction: float = Field(0.5, ge=0, lt=1, description="of the training, where it goes back to at the latest")
    epochs: float | None = Field(
        None, gt=0, le=1000, description="passes over the retained records; default what the training had left"
    )
    noise: float = Field(0.0, ge=0, le=10, allow_inf_nan=False, description="standard deviation added to each weight")


class MembershipLossParams(RetainEpochsParams):
    """A membership attack in the loss. `weight` is that of its term; `refresh` steps between two fits of the attack."""

    weight: float = Field(1.0, gt=0, le=100, allow_inf_nan=False, description="of the membership term")
    refresh: int = Field(10, ge=1, le=1000, description="steps between two fits of the attack")
    layer: Literal["answers", "activations"] = Field("answers", description="what the attack looks at")


class RelevancePerturbationParams(MethodParams):
    """Zero-shot unlearning of whole classes by relevance (2410.23693)."""

    tries: int = Field(200, ge=1, le=100_000, description="most units that are tried, by falling relevance")
    noise: float = Field(1.0, ge=0, le=10, description="noise put in place of a unit, in those of its own weights")
    records: int = Field(256, ge=1, le=100_000, description="most unseen records that relevance is taken from")


class CondensedRepairParams(ForgetPassesParams):
    """Dataset condensation in front of the repair (2402.00195)."""

    share: float = Field(0.1, gt=0, le=1, description="share of the retained records that stands for all of them")
    alpha: float = Field(0.7, gt=0, lt=1, description="weight of the retained records against the forgotten")
    repair_epochs: float = Field(5.0, ge=0, le=1000, description="passes over the condensed set afterwards")


FOUNDING: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="first_epoch_ascent",
        target="workers.methods.first_epoch_ascent:first_epoch_ascent",
        params=FirstEpochAscentParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("recipe", "lineage", "held_out"),
        summary="go up the gradients that the records had at the end of the first epoch, until they look unseen",
        guarantee="none: judged by measurement",
        source="Zagardo 2024, arXiv 2406.09391, gradients recomputed at a kept state, with a calibrated length",
    ),
    MethodSpec(
        name="top_k_perturbation",
        target="workers.methods.top_k_perturbation:top_k_perturbation",
        params=TopKPerturbationParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="put noise on the weights that forgotten records depend on most, then repair",
        guarantee="none: judged by measurement",
        source="Zuo et al. 2025, arXiv 2401.04385, read from its abstract and a third-party implementation",
    ),
    MethodSpec(
        name="random_k_perturbation",
        target="workers.methods.random_k_perturbation:random_k_perturbation",
        params=RandomKPerturbationParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="put noise on weights drawn at random, then repair",
        guarantee="none: judged by measurement",
        source="Zuo et al. 2025, arXiv 2401.04385, read from its abstract and a third-party implementation",
    ),
    MethodSpec(
        name="rewind",
        target="workers.methods.rewind:rewind",
        params=RewindParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("recipe", "lineage"),
        summary="go back to an earlier state of the training and go on from there on retained records",
        guarantee="none: judged by measurement",
        source="Rewind-to-Delete, arXiv 2409.09778, in mini-batches, which its certificate does not cover",
    ),
    MethodSpec(
        name="membership_loss",
        target="workers.methods.membership_loss:membership_loss",
        params=MembershipLossParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("held_out",),
        summary="train against a membership attack on the forgotten records, which may then not judge the result",
        guarantee="none: judged by measurement, with attacks other than its own",
        source="Silver Linings (a membership term in the loss), read from secondary sources",
        opposes=(
            "membership_auc",
            "companion_canaries",
            "companion_rate",
            "canary_exposure",
            "canary_rank_one",
            "canary_guesses",
            "canary_guesses_right",
        ),
    ),
    MethodSpec(
        name="relevance_perturbation",
        target="workers.methods.relevance_perturbation:relevance_perturbation",
        params=RelevancePerturbationParams,
        kind="approximate",
        tasks=("image-classification", "text-classification"),
        needs=("held_out",),
        summary="perturb the units most relevant to a class, for requests that name all of a class",
        guarantee="none: judged by measurement",
        source="arXiv 2410.23693, read from its abstract: layer-wise relevance on unseen records",
    ),
    MethodSpec(
        name="condensed_repair",
        target="workers.methods.condensed_repair:condensed_repair",
        params=CondensedRepairParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="erase up to a cap and repair on a small weighted set that stands for the retained records",
        guarantee="none: judged by measurement",
        source="arXiv 2402.00195, read from its abstract: weighted representatives in place of made records",
    ),
)
