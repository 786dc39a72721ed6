"""In how many bits a model's weights can be served: the names that registration, evaluation and report share."""

from typing import Literal, get_args

from service.errors import BadParameters

Precision = Literal["fp32", "bf16", "int8", "int4"]

FULL: Precision = "fp32"
"""In which models are trained and stored."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)[1:]
"""What weights are rounded to beside it, see workers/modeling/rounding.py."""


def check_precision(name: str) -> Precision:
    """The same name. Raises BadParameters for one that is unknown."""
    for known in (FULL, *PRECISIONS):
        if name == known:
            return known
    raise BadParameters(f"precision {name[:40]!r} is unknown: use {', '.join((FULL, *PRECISIONS))}")
