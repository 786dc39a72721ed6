"""Methods that compute the change of the weights in one piece, or solve a convex part of the model anew."""

from typing import Literal

from pydantic import Field

from service.catalogue.parameters import EditParams, MethodParams
from service.catalogue.specs import ALL_TASKS, MethodSpec, Task

_CLASSIFIERS: tuple[Task, ...] = ("image-classification", "text-classification")


class MoveParams(EditParams):
    """Methods whose whole edit is one move of the weights, or one for each record. Optimiser and rates play no part.

    `bound` "record": the move ends where forgotten records lose what unseen ones do, or where unseen or retained
    records lose more than they may; `rise` is how much more unseen ones may lose, relative to before.
    """

    bound: Literal["record", "none"] = Field("record", description="stop at the loss of unseen records, or never")
    rise: float = Field(0.02, ge=0, le=1, allow_inf_nan=False, description="rise of the loss of unseen records")


class InfluenceParams(MoveParams):
    """Influence updates (2108.11577). `scale` multiplies the move: the paper's tau for the first order, 1 is a whole
    Newton step for the second."""

    order: Literal["first", "second"] = Field("second", description="gradients alone, or with the inverse Hessian")
    layers: Literal["head", "all", "embedding", "last_blocks"] = Field("head", description="what is changed")
    blocks: int = Field(1, ge=1, le=1000, description="how many blocks last_blocks means")
    damping: float = Field(1e-3, ge=0, le=1e3, allow_inf_nan=False, description="added to the Hessian's diagonal")
    scale: float = Field(1.0, gt=0, le=1e4, allow_inf_nan=False, description="length of the move")
    products: int = Field(100, ge=1, le=10_000, description="most Hessian-vector products")
    sample: int = Field(2000, ge=10, le=1_000_000, description="retained records that the Hessian is taken over")


class DescentToDeleteParams(MethodParams):
    """Descent-to-Delete (2007.02923) on the linear head. `epsilon`, `delta`: how alike the published head is to the
    head that the retained records alone have their minimum at."""

    l2: float = Field(
        1e-3,
        gt=0,
        le=1e3,
        allow_inf_nan=False,
        description="half of it times the squared norm is added to the mean loss",
    )
    steps: int = Field(2000, ge=1, le=1_000_000, description="full gradient steps on the retained records")
    epsilon: float = Field(1.0, gt=0, le=100, allow_inf_nan=False, description="of the noise")
    delta: float = Field(1e-5, gt=0, le=0.1, allow_inf_nan=False, description="of the noise")
    largest_noise: float = Field(
        1.0, gt=0, le=1e3, allow_inf_nan=False, description="refuse beyond, in root mean squares of the head's weights"
    )


class MiniUnlearningParams(MoveParams):
    """Mini-Unlearning (2406.16986): the last few states of the training and how fast what came before them fades."""

    states: int = Field(3, ge=1, le=100, description="how many of the last kept states are used")
    contraction: float = Field(0.5, ge=0, lt=1, description="what is left of a difference after one state")
    scale: Literal["calibrated", "one"] = Field(
        "calibrated", description="as far as the bound allows, or the computed length, as always without a bound"
    )


INFLUENCE: tuple[MethodSpec, ...] = (
    MethodSpec(
        name="influence",
        target="workers.methods.influence:influence",
        params=InfluenceParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=(),
        summary="take back or correct what records did to the weights, by gradients or one Newton step",
        guarantee="none: judged by measurement",
        source="Warnecke et al. 2023, arXiv 2108.11577, by conjugate gradients, with a bounded length",
        corrects=True,
    ),
    MethodSpec(
        name="descent_to_delete",
        target="workers.methods.descent_to_delete:descent_to_delete",
        params=DescentToDeleteParams,
        kind="approximate",
        tasks=_CLASSIFIERS,
        needs=(),
        summary="solve the linear head anew on retained records and hide what is left in noise",
        guarantee="none for the whole model: judged by measurement",
        source="Neel et al. 2021, arXiv 2007.02923, for the head on fixed features",
    ),
    MethodSpec(
        name="mini_unlearning",
        target="workers.methods.mini_unlearning:mini_unlearning",
        params=MiniUnlearningParams,
        kind="approximate",
        tasks=ALL_TASKS,
        needs=("recipe", "lineage", "held_out"),
        summary="take back what the records did to the last states of the training, the rest having faded",
        guarantee="none: judged by measurement",
        source="arXiv 2406.16986, read from secondary sources: states of the training in place of stored gradients",
    ),
)
