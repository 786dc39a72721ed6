"""Methods made for language models: a push on forgotten records beside a term that holds the retained ones.

Those whose idea is not bound to tokens take classifiers too, with one prediction a record.
"""

from typing import Literal

from pydantic import Field

from service.catalogue.parameters import EditParams, ForgetPassesParams, LowRankParams
from service.catalogue.specs import ALL_TASKS, MethodSpec

NO_GUARANTEE = "none: judged by measurement"


class TwoTermParams(ForgetPassesParams, LowRankParams):
    """gamma * (term on forgotten records) + alpha * (term on retained ones)."""

    gamma: float = Field(1.0, gt=0, le=10_000, description="weight of the term on forgotten records")
    alpha: float = Field(1.0, ge=0, le=10_000, description="weight of the term on retained records")


class RetainTermParams(TwoTermParams):
    """Two terms, with a choice of the one on retained records."""

    retain_term: Literal["nll", "kl"] = Field("nll", description="training loss, or KL from the served model")


class GradDiffParams(RetainTermParams):
    """GradDiff."""


class KlMinParams(TwoTermParams):
    """KL minimisation: the term on retained records is always KL from the served model."""


class NpoParams(RetainTermParams):
    """NPO (2404.05868). Published with gamma 1."""

    gamma: float = Field(0.1, gt=0, le=10_000, description="weight of the term, which sums over a text's tokens")
    beta: float = Field(0.1, gt=0, le=100, description="inverse temperature: 0 in the limit is plain ascent")


class SimNpoParams(RetainTermParams):
    """SimNPO (2410.07163)."""

    gamma: float = Field(0.125, gt=0, le=10_000, description="weight of the term on forgotten records")
    beta: float = Field(4.5, gt=0, le=100, description="inverse temperature")
    delta: float = Field(0.0, ge=0, le=20, description="margin, nats a token")


class UndialParams(RetainTermParams):
    """UNDIAL (2402.10052). Published with alpha 0."""

    beta: float = Field(10.0, gt=0, le=100, description="taken from the teacher's logit of the true class or token")


class WgaParams(RetainTermParams):
    """Weighted gradient ascent (2502.19301)."""

    beta: float = Field(1.0, ge=0, le=20, description="power of the probability that weighs a prediction")


class JensUnParams(TwoTermParams):
    """JensUn (2509.02820)."""

    gamma: float = Field(0.5, gt=0, le=10_000, description="weight of the term on forgotten records")
    alpha: float = Field(0.5, ge=0, le=10_000, description="weight of the term on retained records")
    target: Literal["flat", "refusal"] = Field(
        "flat", description="what forgotten records are drawn to: no preference, or a fixed text (language models)"
    )
    refusal: str = Field("No idea", min_length=1, max_length=200, description="the text, repeated over the answer")


class PduParams(ForgetPassesParams, LowRankParams):
    """PDU (2506.05314). The retained records' loss may be `epsilon`, or (1 + tolerance) times the served model's."""

    epsilon: float | None = Field(None, gt=0, le=100, description="most loss on retained records, nats")
    tolerance: float = Field(0.1, ge=0, le=100, description="rise that is allowed where epsilon is not given")
    multiplier: float = Field(100.0, ge=0, le=1e6, description="first weight of the retained records' loss")
    dual_step: float = Field(5.0, ge=0, le=1e4, description="how fast that weight follows the excess")
    warmup: float = Field(0.5, ge=0, le=1, description="share of the steps in which the weight stays")


class RmuParams(TwoTermParams):
    """RMU (2403.03218)."""

    layer: int | None = Field(
        None, ge=0, le=1000, description="block whose output is steered; default 7, or the middle"
    )
    coefficient: float = Field(
        2.0, gt=0, le=1000, description="length of the target, in mean lengths of the forgotten records' own states"
    )
    weights: Literal["blocks", "all"] = Field("blocks", description="train that block and two before it, or all")


class ExtrapolationParams(LowRankParams):
    """Extrapolation (2602.06441)."""

    passes: int = Field(5, ge=1, le=1000, description="visits of each forgotten record while it is memorised")
    alpha: float = Field(1.0, ge=0, le=10_000, description="weight of KL from the served model on retained records")
    most: float = Field(64.0, gt=0, le=10_000, description="largest strength that is tried")
    rounds: int = Field(8, ge=1, le=30, description="halvings of the bracket")


def _spec(
    name: str,
    params: type[EditParams],
    summary: str,
    source: str,
    tasks: tuple[Literal["image-classification", "text-classification", "causal-lm"], ...] = ALL_TASKS,
) -> MethodSpec:
    return MethodSpec(
        name=name,
        target=f"workers.methods.{name}:{name}",
        params=params,
        kind="approximate",
        tasks=tasks,
        needs=("held_out",),
        summary=summary,
        guarantee=NO_GUARANTEE,
        source=source,
    )


LANGUAGE: tuple[MethodSpec, ...] = (
    _spec(
        "grad_diff",
        GradDiffParams,
        "descend on retained and ascend on forgotten records until they look unseen",
        "Liu et al. 2022, arXiv 2203.12817; Maini et al. 2024, arXiv 2401.06121, with a bound for each record",
    ),
    _spec(
        "kl_min",
        KlMinParams,
        "ascend on forgotten records, keep the served answers to retained ones",
        "Maini et al. 2024, arXiv 2401.06121, with a bound for each record",
    ),
    _spec(
        "npo",
        NpoParams,
        "make forgotten texts less likely than the served model does, less and less so",
        "Zhang et al. 2024, arXiv 2404.05868 (NPO), with a bound for each record",
        ("causal-lm",),
    ),
    _spec(
        "simnpo",
        SimNpoParams,
        "NPO by the token and without the served model as its measure",
        "Fan et al. 2024, arXiv 2410.07163 (SimNPO), with a bound for each record",
        ("causal-lm",),
    ),
    _spec(
        "rmu",
        RmuParams,
        "steer a hidden layer to one direction on forgotten texts, hold it on retained ones",
        "Li et al. 2024, arXiv 2403.03218 (RMU)",
        ("causal-lm",),
    ),
    _spec(
        "undial",
        UndialParams,
        "distil from the served answers with the true token made unlikely",
        "Dong et al. 2024, arXiv 2402.10052 (UNDIAL), with a bound for each record",
    ),
    _spec(
        "wga",
        WgaParams,
        "ascend on forgotten records, each prediction by how sure the model is of it",
        "Wang et al. 2025, arXiv 2502.19301 (WGA), with a bound for each record",
    ),
    _spec(
        "pdu",
        PduParams,
        "flatten the logits on forgotten texts while the loss on retained ones stays under a limit",
        "Entesari et al. 2025, arXiv 2506.05314 (PDU), with a bound for each record",
        ("causal-lm",),
    ),
    _spec(
        "jensun",
        JensUnParams,
        "draw forgotten records to no preference or a refusal, and hold retained ones, by bounded divergences",
        "Singh et al. 2025, arXiv 2509.02820 (JensUn), with a bound for each record",
    ),
    _spec(
        "extrapolation",
        ExtrapolationParams,
        "memorise the forgotten records further, then go the opposite way as far as they look unseen",
        "Huang et al. 2026, arXiv 2602.06441",
    ),
)
