"""Methods that take their aim from reference models trained without the records."""

from typing import Literal

from pydantic import Field

from service.catalogue.parameters import EditParams, MethodParams
from service.catalogue.specs import ALL_TASKS, MethodSpec


class NablaTauRefParams(EditParams):
    """Reference matching. `passes` None: as many as `min_steps` steps take, at least 6 and at most `most_passes`."""

    passes: int | None = Field(None, ge=1, le=1000, description="visits of each forgotten record")
    min_steps: int = Field(96, ge=1, le=10_000, description="least number of steps")
    most_passes: int = Field(96, ge=1, le=1000, description="most visits, for small forget sets")
    weight: float = Field(0.3, gt=0, le=100, description="weight of the forget term beside the retain term")
    huber: float = Field(2.0, gt=0, le=100, description="spreads beyond which a record pulls no harder")
    anchor: Literal["labels", "outputs"] = Field(
        "outputs", description="what retained records are held to: their labels, or the served model's outputs"
    )
    tolerance: float = Field(0.05, ge=0, le=10, description="mean distance, in spreads, at which a run may end")


class OracleMatchingParams(EditParams):
    """Oracle matching has a length alone."""

    passes: int = Field(20, ge=1, le=1000, description="visits of each forgotten record")


class DatamodelMatchingParams(EditParams):
    """Datamodel matching. `spread` None: the standard deviation of what is predicted for retained records."""

    source: Literal["pool", "newton"] = Field("pool", description="predict from references, or by the linear head")
    estimator: Literal["own", "ridge", "lasso"] = Field("own", description="how effects are fitted over references")
    retained: int = Field(1024, ge=16, le=100_000, description="retained records that hold the model where it is")
    passes: int = Field(20, ge=1, le=1000, description="visits of each forgotten record")
    huber: float = Field(2.0, gt=0, le=100, description="spreads beyond which a record pulls no harder")
    spread: float | None = Field(None, gt=0, le=1000, description="what a distance of one is worth")
    damping: float = Field(1e-3, gt=0, le=10, description="added to the curvature of the head (newton)")


class RumParams(MethodParams):
    """RUM. A stratum's method runs with its defaults, at `share` of its usual length where it has passes or epochs.

    `low` may be "repair": fine-tuning on retained records alone.
    """

    refine_by: Literal["memorization", "confidence", "entanglement"] = Field(
        "memorization",
        description="references' accuracy with less without the record; the training's mean confidence; or distance "
        "from the retained records' centre",
    )
    low: str = Field("repair", description="method of the least memorised third")
    middle: str = Field("negative_gradient_plus", description="method of the middle third")
    high: str = Field("nabla_tau_ref", description="method of the most memorised third")
    fewest: int = Field(30, ge=3, le=100_000, description="forgotten records from which on strata are made")


REFERENCE_METHODS: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="nabla_tau_ref",
        target="workers.methods.nabla_tau_ref:nabla_tau_ref",
        params=NablaTauRefParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("held_out", "references"),
        summary="bring each forgotten record to what reference models without it say, from both sides",
        guarantee="none: judged by measurement, by references that the method never saw",
        source="own, after Trippa et al. 2024, arXiv 2403.14339, and Georgiev et al. 2024, arXiv 2410.23232",
    ),
    MethodSpec(
        name="oracle_matching",
        target="workers.methods.oracle_matching:oracle_matching",
        params=OracleMatchingParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("oracle",),
        summary="fine-tune to answer as a given retrained model does: a bound for experiments",
        guarantee="none: judged by measurement",
        source="Georgiev et al. 2024, arXiv 2410.23232, algorithm C.1",
    ),
    MethodSpec(
        name="datamodel_matching",
        target="workers.methods.datamodel_matching:datamodel_matching",
        params=DatamodelMatchingParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="predict a retrained model's scores from reference models, and fine-tune towards them",
        guarantee="none: judged by measurement",
        source="Georgiev et al. 2024, arXiv 2410.23232, algorithms C.2 and C.3",
    ),
    MethodSpec(
        name="rum",
        target="workers.methods.rum:rum",
        params=RumParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("held_out",),
        summary="split the records by how far they were memorised, and give each part the method that suits it",
        guarantee="none: judged by measurement",
        source="Zhao et al. 2024, arXiv 2406.01257; proxies after arXiv 2410.16516",
    ),
)
