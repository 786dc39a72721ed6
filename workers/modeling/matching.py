"""Bringing records to given scores, from both sides and no further."""

import torch
from torch import Tensor

from workers.modeling.answers import Answers
from workers.modeling.reference_targets import Array, scores


class Aim:
    """Scores [N] that some records should have; how far each was from its own when it was last seen.

    Distances count in `spread`; beyond `huber` of them a record pulls no harder (Huber 1964), so that one that lies far
    off cannot throw the rest out.
    """

    def __init__(self, wanted: Array, spread: float, huber: float, language: bool, device: torch.device) -> None:
        self._wanted = torch.as_tensor(wanted, dtype=torch.float32, device=device)
        self._spread, self._huber, self._language = spread, huber, language
        self._far = torch.full((len(wanted),), torch.inf)

    def term(self, rows: list[int], found: Answers) -> Tensor:
        """mean_i Huber((s_i - t_i) / spread) over these records, from the model's answers to them."""
        reached = scores(found, self._language)
        off = (reached - self._wanted[torch.as_tensor(rows, device=reached.device)]) / self._spread
        self._far[rows] = off.detach().abs().float().cpu()
        return torch.nn.functional.huber_loss(off, torch.zeros_like(off), delta=self._huber)

    def within(self, tolerance: float) -> bool:
        """Whether the records lay at their targets, on average, when they were last seen."""
        return float(self._far.mean()) < tolerance
