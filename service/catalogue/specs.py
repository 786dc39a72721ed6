"""What an entry of the catalogue says. Targets are "module:function" strings, so listing loads nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

Task = Literal["image-classification", "text-classification", "causal-lm"]
ALL_TASKS: tuple[Task, ...] = ("image-classification", "text-classification", "causal-lm")


@dataclass(frozen=True)
class MethodSpec:
    """One unlearning method. `needs`: what the problem must bring (recipe, held_out, ...), checked before any work.

    `opposes`: checks and metrics that it is trained against, so that they say nothing about what it made. `corrects`:
    it takes corrected versions of records, which are rectified instead of deleted.
    """

    name: str
    target: str
    params: type[BaseModel]
    kind: Literal["exact", "approximate"]
    tasks: tuple[Task, ...]
    needs: tuple[str, ...]
    summary: str
    guarantee: str
    source: str
    opposes: tuple[str, ...] = ()
    corrects: bool = False


@dataclass(frozen=True)
class MetricSpec:
    """One measurement. `direction` says how to read it, `needs` what beside the two models it takes."""

    name: str
    target: str
    role: Literal["gate", "diagnostic"]
    direction: str
    needs: tuple[str, ...]
    summary: str
