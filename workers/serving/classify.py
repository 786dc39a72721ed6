"""Answers of `POST /predict`: labels with probabilities for images and texts."""

import base64
import binascii
from typing import Any

import torch

from service.errors import BadDataset, Invalid
from workers.modeling.images import ImageClassification
from workers.modeling.tasks import Task
from workers.serving.loader import Served
from workers.serving.schemas import Instance, PredictBody

_ROLES = {"image-classification": "image", "text-classification": "text"}


def predict(served: Served, body: PredictBody) -> list[dict[str, Any]]:
    """One object {label, probability, top_k} per instance, in order.

    Raises Invalid for an instance of the wrong kind, for base64 or images that cannot be decoded, and for images that
    differ in size within one call.
    """
    task = _adapter(served)
    role = _ROLES[served.pointer.task]
    values = [_value(instance, role, at) for at, instance in enumerate(body.instances)]
    try:
        encoding = task.encode({role: values, "label": [0] * len(values)})
    except BadDataset as error:
        raise Invalid(f"/instances: {error.detail}", pointer="/instances") from error
    model = served.loaded.model
    with served.lock, torch.inference_mode():
        batch = task.batch(encoding, list(range(len(values))))
        outputs = task.outputs(model, {name: value.to(model.device) for name, value in batch.items()})
        probabilities = outputs.logits.softmax(dim=1).cpu()  # type: ignore[union-attr]
    return [_told(row, body.top_k) for row in probabilities]


def _adapter(served: Served) -> Task:
    """The task; for images a fresh one, since it remembers the size of the first image it has seen."""
    task = served.loaded.task
    if isinstance(task, ImageClassification):
        return ImageClassification(task.channels, task.num_labels, task.preparation)
    return task


def _value(instance: Instance, role: str, at: int) -> Any:
    pointer = f"/instances/{at}"
    given = instance.image if role == "image" else instance.text
    other = instance.text if role == "image" else instance.image
    if given is None or other is not None:
        raise Invalid(f"{pointer}: give {role!r} and nothing else", pointer=pointer)
    if role == "text":
        return given
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{pointer}/image: not valid base64", pointer=f"{pointer}/image") from error


def _told(row: torch.Tensor, count: int) -> dict[str, Any]:
    values, labels = row.topk(min(count, len(row)))
    top = [
        {"label": int(label), "probability": round(float(value), 6)}
        for label, value in zip(labels, values, strict=True)
    ]
    return {**top[0], "top_k": top}
