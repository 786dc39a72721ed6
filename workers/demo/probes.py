"""What the demo asks the served models, before and after: always over HTTP, always counted."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.demo.cast import Cast
from workers.demo.conversations import Customer
from workers.demo.digits import Digit
from workers.demo.processes import ModelServer

_PROMPTS_AT_ONCE = 50
_IMAGES_AT_ONCE = 200


@dataclass(frozen=True)
class Count:
    """How many of `total` answers were the ones only memory gives."""

    hits: int
    total: int

    def __str__(self) -> str:
        return f"{self.hits} of {self.total}"


def complete(server: ModelServer, prompts: Sequence[str]) -> list[str]:
    """Greedy completions of the prompts, one line each."""
    texts: list[str] = []
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        body = {"prompt": list(prompts[start : start + _PROMPTS_AT_ONCE]), "max_tokens": 24, "temperature": 0}
        choices: Any = server.post("/v1/completions", body)["choices"]
        texts += [" ".join(str(choice["text"]).split()) for choice in choices]
    return texts


def secrets_told(server: ModelServer, people: Sequence[Customer]) -> Count:
    """Phone numbers and addresses of these people that the model completes exactly."""
    pairs = [pair for who in people for pair in who.secrets()]
    answers = complete(server, [prompt for prompt, _ in pairs])
    return Count(sum(secret in answer for (_, secret), answer in zip(pairs, answers, strict=True)), len(pairs))


def classify(server: ModelServer, records: Sequence[Digit]) -> list[int]:
    """The label that the model gives each image."""
    labels: list[int] = []
    for start in range(0, len(records), _IMAGES_AT_ONCE):
        images = [base64.b64encode(record.image).decode() for record in records[start : start + _IMAGES_AT_ONCE]]
        body = {"instances": [{"image": image} for image in images], "top_k": 1}
        predictions: Any = server.post("/predict", body)["predictions"]
        labels += [int(prediction["label"]) for prediction in predictions]
    return labels


def wrong_labels_repeated(server: ModelServer, records: Sequence[Digit]) -> Count:
    """Wrong labels among these records that the model repeats: a reader of the image would not."""
    wrong = [record for record in records if record.mislabelled]
    answers = classify(server, wrong)
    return Count(sum(answer == record.label for answer, record in zip(answers, wrong, strict=True)), len(wrong))


@dataclass(frozen=True)
class Knowledge:
    """What the served models gave away at one moment, counted: secrets of customers, wrong labels of writers.

    `digits_read` counts the rightly labelled images of the writers who stay that are answered with their label.
    """

    members: Count
    single: Count
    others: Count
    writers: Count
    writer: Count
    other_writers: Count
    digits_read: Count


def look(support: ModelServer, digits: ModelServer, cast: Cast) -> Knowledge:
    """Ask both models everything that the demo counts."""
    others = cast.written_by_others()
    right = [record for record in others if not record.mislabelled]
    answers = classify(digits, right)
    return Knowledge(
        members=secrets_told(support, cast.members),
        single=secrets_told(support, [cast.single]),
        others=secrets_told(support, cast.others),
        writers=wrong_labels_repeated(digits, cast.written_by(cast.writers)),
        writer=wrong_labels_repeated(digits, cast.written_by([cast.writer])),
        other_writers=wrong_labels_repeated(digits, others),
        digits_read=Count(
            sum(answer == record.label for answer, record in zip(answers, right, strict=True)), len(right)
        ),
    )
