"""How far two answers lie apart, for each prediction, from log-probabilities [M, C] as in `Answers.log_probs`."""

import math

import torch
from torch import Tensor


def kullback_leibler(reference: Tensor, log_probs: Tensor) -> Tensor:
    """KL(reference || other) of each prediction [M], nats."""
    return (reference.exp() * (reference - log_probs)).sum(dim=1)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """The mean of both divergences to the half-way mixture [M], nats: symmetric, at most log 2."""
    middle = torch.logaddexp(first, second) - math.log(2)
    return (kullback_leibler(first, middle) + kullback_leibler(second, middle)) / 2


def jensen_shannon_to_one(own: Tensor) -> Tensor:
    """The same between an answer and certainty of one class [M], from the log-probability [M] of that class:
    log 2 + (p log p - (1 + p) log(1 + p)) / 2."""
    p = own.exp()
    return math.log(2) + (p * own - (1 + p) * torch.log1p(p)) / 2
