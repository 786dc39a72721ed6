"""One low-rank adapter (LoRA, Hu et al. 2021, arXiv 2106.09685) on a model that is edited, merged when it is done.

Only the adapter is trained: an edit of rank r on every dense layer and ungrouped convolution of the body; the head, the
embeddings and the normalisation stay. With the adapter off the model is what was served, so that methods need no copy
of it to compare with. What is saved is a plain model. Robustness to relearning is reported to be lower than that of an
edit of all weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from service.catalogue.recipes import AdaptersSection
from service.errors import BadParameters, BadRecipe
from workers.modeling.adapters import adapter_config

_NAME = "default"
_ALPHA_PER_RANK = 2.0


def put_adapter(model: PreTrainedModel, rank: int) -> None:
    """Put an adapter that does nothing yet on the model, in place, and freeze the rest; drawn from torch's generator.

    Its scale alpha / rank is 2, as in a recipe's default. Raises BadParameters where the model has no layer for it.
    """
    from peft import inject_adapter_in_model

    if not isinstance(model, PreTrainedModel):
        raise BadParameters("lora_rank: a model of several members takes no adapter: leave it out")
    try:
        config = adapter_config(model, AdaptersSection(rank=rank, alpha=_ALPHA_PER_RANK * rank), heads=False)
    except BadRecipe as error:
        raise BadParameters(f"lora_rank: {type(model).__name__} has no layer that takes an adapter") from error
    inject_adapter_in_model(config, model, adapter_name=_NAME)
    # What lies outside the adapter's layers is frozen too.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before the adapter, for passes without gradient."""
    layers = [layer for _, layer in _layers(model)]
    # Turning adapters off and on again would make all of them trainable.
    trained = [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, on in trained:
            parameter.requires_grad_(on)


@torch.no_grad()
def merge_adapter(model: nn.Module) -> None:
    """Add the adapter to the weights that it lies on and take it away; nothing where there is none."""
    for name, layer in _layers(model):
        base = layer.get_base_layer()
        base.weight.add_(layer.get_delta_weight(_NAME).to(base.weight.dtype))
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, base)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, cast(Any, m)) for name, m in model.named_modules() if hasattr(m, "get_delta_weight")]
