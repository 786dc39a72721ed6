"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), one for each cohort of subjects, on one frozen base.

A cohort trains its adapter on its own records and on nothing else; the adapters know nothing of each other, and the
base, with its normalisation statistics, stays as it is. Published is one plain model: W = W0 + mean over cohorts of
(alpha / rank) B_c A_c. So an adapter can be trained again or left out, and the mean taken anew, and the result is what
a training without the record would have given.

The head of a classifier is trained with each adapter, from initial weights that all cohorts share (drawn from the run's
seed, or the base's own), and averaged like everything else. A language model keeps the head of its base.

The price: a mean over C cohorts holds about 1/C of what only one of them was taught.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from service.catalogue.recipes import AdaptersSection, Recipe
from service.errors import BadRecipe
from workers.modeling.devices import seed_everything
from workers.modeling.directories import canonical_json, sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.part_training import Job
from workers.modeling.parted_models import Ground, grow, regrow
from workers.modeling.parts import PartState, PartTable, divide, state_place
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records
from workers.modeling.states import read_tensors
from workers.modeling.training_record import TrainingRecord

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_NAME = "default"


def train_adapters(
    recipe: Recipe,
    data: Records,
    directory: Path,
    seed: int,
    context: Context,
    provenance: Provenance,
    table: PartTable | None = None,
) -> TrainingRecord:
    """Train all adapters into an empty directory; errors as for `train_into`, BadDataset for more cohorts than
    subjects, BadRecipe for a base without a layer that takes one.

    `table` is who belongs where, one row for each record of `data`; None draws it.
    """
    if table is None:
        table = divide(data, _section(recipe).cohorts, 1, seed)
    job = Job("adapters", _section(recipe).cohorts, recipe, data, table.blank(), directory, seed, provenance)
    return grow(Adapters, job, context)


def retrain_adapters(problem: Problem, directory: Path, context: Context) -> tuple[TrainingRecord, Job]:
    """`workers.modeling.parted_models.regrow` for adapters."""
    return regrow(Adapters, "adapters", problem, directory, context)


class Adapters:
    """Implements `workers.modeling.parted_models.Craft`: a part is an adapter, all are trained in the same model."""

    def __init__(self, ground: Ground) -> None:
        from peft import get_peft_model_state_dict, inject_adapter_in_model

        self._ground = ground
        job, template = ground.job, ground.template.model
        self._config = adapter_config(template, _section(job.recipe), job.recipe.model.task != "causal-lm")
        seed_everything(job.seed, ground.context.threads)
        # A copy, so that the base itself stays for the mean to be added to.
        self._model: Any = inject_adapter_in_model(self._config, copy.deepcopy(template), adapter_name=_NAME)
        self._initial = {name: value.clone() for name, value in get_peft_model_state_dict(self._model).items()}

    def model(self, part: int) -> PreTrainedModel:
        """The base with an adapter that does nothing yet, the same for every cohort."""
        del part
        self._fill(self._initial)
        model: PreTrainedModel = self._model
        return model

    def write(self, place: Path, model: nn.Module, optimizer: Optimizer | None) -> dict[str, str]:
        """A directory that peft loads onto the base."""
        from peft import get_peft_model_state_dict

        del optimizer
        place.mkdir(parents=True)
        tensors = {f"{_PREFIX}{name}": value for name, value in get_peft_model_state_dict(model).items()}
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, place / ADAPTER)
        (place / CONFIG).write_bytes(canonical_json(_plain(self._config)))
        return {name: sha256_file(place / name) for name in (ADAPTER, CONFIG)}

    @torch.no_grad()
    def aggregate(self, states: list[PartState]) -> PreTrainedModel:
        """The base plus the mean of the adapters' deltas."""
        sums: dict[str, Tensor] = {}
        for state in states:
            place = state_place(self._ground.job.folder, state.part, state.slice)
            tensors = read_tensors(place / ADAPTER, state.files[ADAPTER])
            self._fill({name.removeprefix(_PREFIX): value for name, value in tensors.items()})
            for name, value in self._deltas():
                sums[name] = sums[name] + value if name in sums else value
        base = copy.deepcopy(self._ground.template.model)
        own = dict(base.named_parameters())
        for name, value in sums.items():
            own[name].add_((value / len(states)).to(own[name].dtype))
        return base

    def _fill(self, tensors: dict[str, Tensor]) -> None:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self._model, tensors, adapter_name=_NAME)

    def _deltas(self) -> list[tuple[str, Tensor]]:
        """(name of a base weight, what the adapter adds to it), the head's as the distance from the base's."""
        found = []
        for name, module in self._model.named_modules():
            if hasattr(module, "get_delta_weight"):
                found.append((f"{name}.weight", module.get_delta_weight(_NAME)))
            elif hasattr(module, "modules_to_save"):
                start = dict(module.original_module.named_parameters())
                for key, value in module.modules_to_save[_NAME].named_parameters():
                    found.append((f"{name}.{key}" if key else name, value - start[key]))
        return found


def adapter_config(model: PreTrainedModel, section: AdaptersSection, heads: bool) -> "LoraConfig":
    """LoRA on every dense layer and ungrouped convolution of the body; `heads`: what lies outside it is trained too.

    Raises BadRecipe where there is no such layer.
    """
    from peft import LoraConfig

    body = model.base_model_prefix
    layers = {
        name: module
        for name, module in model.named_modules()
        if name.startswith(f"{body}.")
        and (isinstance(module, nn.Linear | Conv1D) or (isinstance(module, nn.Conv2d) and module.groups == 1))
    }
    if not layers:
        raise BadRecipe(f"adapters: {type(model).__name__} has no layer that takes one: use sharding or train it whole")
    outside = [name for name, module in model.named_children() if name != body and list(module.parameters())]
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,  # type: ignore[arg-type] # a float does
        target_modules=sorted(layers),
        modules_to_save=outside if heads else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in layers.values()),
    )


def _plain(config: "LoraConfig") -> dict[str, Any]:
    """What peft writes of a configuration, with sets in order: they have none, and the file has a digest."""
    content: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    return {key: sorted(value) if isinstance(value, set) else value for key, value in content.items()}


def _section(recipe: Recipe) -> AdaptersSection:
    if recipe.adapters is None:
        raise BadRecipe("the recipe has no [adapters]")
    return recipe.adapters
