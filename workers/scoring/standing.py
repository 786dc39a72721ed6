"""Where the first of many suffixes of one text stands among the others, for as little reading as that takes.

What comes before the suffix is read once and kept (the keys and values of a transformer); behind it only the tokens of
the suffixes are. What has no chance any more is not read at all: a suffix whose first token is already less likely
than the whole of the true one ends behind it, since each further token can only take away. A model that knows the true
one is asked little; one that does not know it has to read them all.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from service.verification.exposure import exposure
from service.verification.statistics import Array
from workers.modeling.language import IGNORED, CausalLanguageModelling
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context, Meter
from workers.scoring.extraction import BATCH_SIZE, Windows, forced

_KEPT = 8192  # tokens of kept texts in a batch: bounds what their keys and values take
_LARGEST, _LOGITS = 256, 2**24
_ROUNDING, _AGREES = 1e-6, 1e-3


class _NotKept(Exception):
    """This model keeps nothing of what it has read, or what it keeps does not give the same numbers."""


class Standings:
    """Ranks of one model's suffixes; `forward_passes` counts the batches that were read."""

    def __init__(self, loaded: LoadedModel, context: Context) -> None:
        self._loaded, self._context = loaded, context
        self._keeps: bool | None = None
        self.forward_passes = 0

    def exposures(self, asked: Sequence[Windows]) -> Array:
        """Exposure in bits of the first of each windows' suffixes among the others: log2 |R| - log2 rank [values].

        The rank counts from 1 those that are at least as likely: ties go to the others, as in
        `service.verification.exposure`.
        """
        meter, found = Meter(self._context, len(asked), "ranking numbers"), np.zeros(len(asked))
        for at, windows in enumerate(asked):
            rank = np.array([self.rank(windows)], dtype=np.int64)
            found[at] = exposure(rank, len(windows) - 1)[0]
            meter.step(at + 1)
        return found

    @torch.no_grad()
    def rank(self, windows: Windows) -> int:
        """1 and how many of the other suffixes are at least as likely as the first."""
        self._loaded.model.eval()
        if self._keeps is not False and len({tuple(prefix) for prefix in windows.prefixes}) == 1:
            try:
                return self._rank_behind(windows)
            except _NotKept:
                self._keeps = False
        totals = self._whole(windows)
        return _rank(float(totals[0]), totals[1:])

    def _whole(self, windows: Windows) -> Array:
        """log p_z [windows] in nats, each read behind the whole text."""
        read = forced(self._loaded, windows, replace(self._context, progress=lambda _: None))
        self.forward_passes += -(-len(windows) // BATCH_SIZE)
        return np.asarray(np.bincount(read.rows, weights=read.log_probs, minlength=len(windows)), dtype=np.float64)

    def _rank_behind(self, windows: Windows) -> int:
        """The same, with what is before the suffixes read once. Raises _NotKept."""
        kept, first = self._read(windows.prefixes[0])
        starts = first[[suffix[0] for suffix in windows.suffixes]].double().cpu().numpy()
        own = float(starts[0] + self._rest(kept, windows.suffixes[:1])[0])
        if self._keeps is None:
            if not np.isclose(own, self._whole(windows.take([0]))[0], rtol=_AGREES, atol=_AGREES):
                raise _NotKept
            self._keeps = True
        ahead = np.flatnonzero(starts >= own - _slack(own))
        others = sorted(ahead[ahead > 0].tolist(), key=lambda at: len(windows.suffixes[at]))
        longest = max(map(len, windows.suffixes))
        vocabulary, prefix = len(first), len(windows.prefixes[0])
        size = max(1, min(_LARGEST, _KEPT // (prefix + longest), _LOGITS // (vocabulary * longest)))
        rank = 1
        for start in range(0, len(others), size):
            rows = others[start : start + size]
            totals = starts[rows] + self._rest(kept, [windows.suffixes[at] for at in rows])
            rank += _rank(own, totals) - 1
        return rank

    def _read(self, prefix: list[int]) -> tuple[Any, Tensor]:
        """(what the model keeps of a text, log-probabilities [V] of the token after it). Raises _NotKept."""
        answer = self._answered(self._ids([prefix]))
        kept = getattr(answer, "past_key_values", None)
        if kept is None:
            raise _NotKept
        return kept, torch.log_softmax(answer.logits[0, -1].float(), dim=0)

    def _rest(self, kept: Any, suffixes: Sequence[list[int]]) -> Array:
        """Log-probability [suffixes] in nats of all their tokens but the first, behind it and what is kept."""
        longest = max(map(len, suffixes)) - 1
        if longest == 0:
            return np.zeros(len(suffixes))
        # Tokens after the end of a shorter one are seen by none before them, and bear no loss.
        task = self._loaded.task
        assert isinstance(task, CausalLanguageModelling)  # noqa: S101  (windows are those of language models)
        pad = int(task.tokenizer.pad_token_id)
        ids = self._ids([suffix[:-1] + [pad] * (longest + 1 - len(suffix)) for suffix in suffixes])
        true = self._ids([suffix[1:] + [IGNORED] * (longest + 1 - len(suffix)) for suffix in suffixes])
        logits = self._answered(ids, kept).logits
        losses = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), true.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return np.asarray(-losses.double().view(true.shape).sum(dim=1).cpu().numpy(), dtype=np.float64)

    def _answered(self, ids: Tensor, kept: Any = None) -> Any:
        """What the model says of token ids [B, T], each row behind what was kept.

        Raises _NotKept until it was seen once that the model can do that, and what the model raises thereafter.
        """
        try:
            options = {}
            if kept is not None:
                options["past_key_values"] = copy.deepcopy(kept)
                options["past_key_values"].batch_repeat_interleave(len(ids))
            answer = self._loaded.model(input_ids=ids, use_cache=True, **options)
        except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
            if self._keeps:
                raise
            raise _NotKept from error
        self.forward_passes += 1
        return answer

    def _ids(self, tokens: list[list[int]]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.int64, device=self._context.device)


def _slack(own: float) -> float:
    """Rounding: of two that are equally likely the other one counts as ahead."""
    return _ROUNDING * (1 + abs(own))


def _rank(own: float, others: Array) -> int:
    return 1 + int(np.count_nonzero(others >= own - _slack(own)))
