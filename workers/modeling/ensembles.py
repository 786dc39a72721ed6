"""Classifiers that answer together: several models of one architecture, aggregated by the mean of their logits.

On disk: `ensemble.json` and one folder a member, each a model directory that plain transformers loads by itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from service.errors import BadModel
from workers.modeling.directories import write_atomic

ENSEMBLE_FILE = "ensemble.json"
_Member = Annotated[str, Field(pattern=r"^shard-\d{2,6}$")]


class EnsembleFacts(BaseModel):
    """ensemble.json. `reason`: why the members are not one model."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["lethe/ensemble/1"] = Field("lethe/ensemble/1", alias="schema")
    aggregation: Literal["mean-logits"] = "mean-logits"
    members: list[_Member] = Field(min_length=1)
    reason: str


class Ensemble(nn.Module):
    """Stands where a transformers classifier stands: `config`, `device`, logits by keyword, `save_pretrained`."""

    def __init__(self, members: Mapping[str, PreTrainedModel], reason: str) -> None:
        super().__init__()
        self.members = nn.ModuleDict(dict(members))
        self.reason = reason
        self.config: Any = next(iter(members.values())).config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """The mean of the members' logits [B, classes]."""
        logits = [member(**inputs).logits.float() for member in self.members.values()]
        return SequenceClassifierOutput(logits=torch.stack(logits).mean(dim=0))

    def save_pretrained(self, directory: str) -> None:
        """Write ensemble.json and the members' folders."""
        facts = EnsembleFacts(members=list(self.members), reason=self.reason)
        for name, member in self.members.items():
            member.save_pretrained(str(Path(directory) / name))  # type: ignore[operator]
        content = facts.model_dump_json(by_alias=True, indent=2).encode() + b"\n"
        write_atomic(Path(directory) / ENSEMBLE_FILE, content)


def member_name(number: int) -> str:
    """The folder of a member."""
    return f"shard-{number:02d}"


def read_ensemble(directory: Path) -> EnsembleFacts | None:
    """ensemble.json of a directory, None where it is a single model; BadModel for a file that cannot be read."""
    path = directory / ENSEMBLE_FILE
    try:
        return EnsembleFacts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BadModel(f"{path}: not a valid list of members ({type(error).__name__})") from error


def member_directories(directory: Path) -> list[Path]:
    """The model directories that transformers loads: the members of an ensemble, or the directory itself."""
    facts = read_ensemble(directory)
    return [directory / name for name in facts.members] if facts is not None else [directory]
