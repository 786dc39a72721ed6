"""The unlearning methods. Adding one: a file in workers/methods, an entry here, a test."""

from service.catalogue.parameters import (
    AdapterParams,
    NablaTauParams,
    NegativeGradientPlusParams,
    RefitParams,
    ReplayParams,
    RetrainParams,
    ShardedParams,
)
from service.catalogue.specs import ALL_TASKS, MethodSpec
from service.errors import BadParameters

METHODS: tuple[MethodSpec, ...] = (
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


def find_method(name: str) -> MethodSpec:
    """The entry of this name. Raises BadParameters listing the known ones."""
    for spec in METHODS:
        if spec.name == name:
            return spec
    raise BadParameters(f"unknown method {name!r}; known ones are {', '.join(spec.name for spec in METHODS)}")
