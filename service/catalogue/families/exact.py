"""Exact methods: what they publish never met the forgotten records. Adding one: a class and an entry here, a file in
workers/methods, a test."""

from typing import Literal

from pydantic import Field

from service.catalogue.parameters import MethodParams
from service.catalogue.specs import ALL_TASKS, MethodSpec


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


EXACT: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="retrain",
        target="workers.methods.retrain:retrain",
        params=RetrainParams,
        kind="exact",
        tasks=ALL_TASKS,
        needs=("recipe",),
        summary="train by the recipe without the forgotten records",
        guarantee="exact by procedure: the forgotten records are in no batch",
        source="the reference of every unlearning paper",
    ),
    MethodSpec(
        name="replay",
        target="workers.methods.replay:replay",
        params=ReplayParams,
        kind="exact",
        tasks=ALL_TASKS,
        needs=("recipe", "lineage"),
        summary="repeat the logged training without the forgotten records, from before the first of them was met",
        guarantee="exact by procedure: byte for byte the logged run without the forgotten records",
        source="deterministic replay, arXiv 2508.12220",
    ),
    MethodSpec(
        name="sharded",
        target="workers.methods.sharded:sharded",
        params=ShardedParams,
        kind="exact",
        tasks=("image-classification", "text-classification"),
        needs=("recipe", "parts"),
        summary="retrain only the shards that held a forgotten record, from the slice that held it",
        guarantee="exact by procedure: byte for byte the training of the retained records with the same assignment",
        source="SISA, Bourtoule et al. 2021, arXiv 1912.03817",
    ),
    MethodSpec(
        name="adapter",
        target="workers.methods.adapter:adapter",
        params=AdapterParams,
        kind="exact",
        tasks=ALL_TASKS,
        needs=("recipe", "parts"),
        summary="retrain or drop only the adapters of the cohorts that held a forgotten record, and average again",
        guarantee="exact by procedure for what was learnt on top of the frozen base",
        source="LoRA, Hu et al. 2022, arXiv 2106.09685, one adapter for each cohort as in SISA",
    ),
    MethodSpec(
        name="refit",
        target="workers.methods.refit:refit",
        params=RefitParams,
        kind="exact",
        tasks=ALL_TASKS,
        needs=("recipe",),
        summary="fine-tune the recipe's public base again without the forgotten records",
        guarantee="exact by procedure for the fine-tuning; what the base learnt elsewhere stays",
        source="the reference of every unlearning paper, for a model with a base",
    ),
)
