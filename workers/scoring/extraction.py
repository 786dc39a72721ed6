"""What extraction is computed from: one teacher-forced pass over prefix and suffix, or sampled continuations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import BadDataset
from workers.modeling.devices import generator
from workers.modeling.language import CausalLanguageModelling, TextEncoding, laid_out
from workers.modeling.loading import LoadedModel
from workers.modeling.problem import Context, Meter
from workers.modeling.records import Records, chunks

PREFIX = SUFFIX = 50
BATCH_SIZE = 64
SAMPLES = 20
MOST_NEW = 128
_STREAM = 41


@dataclass(frozen=True)
class Windows:
    """Token ids that a model is given and those that it should not be able to say, N pairs.

    `rows` int64 [N]: the position of the record that each is from. Other wordings of a prefix are other windows with
    the same suffixes.
    """

    prefixes: list[list[int]]
    suffixes: list[list[int]]
    rows: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Raises BadDataset where a prefix or a suffix is empty, or the three differ in number."""
        same = len(self.prefixes) == len(self.suffixes) == len(self.rows)
        if not same or not all(self.prefixes) or not all(self.suffixes):
            raise BadDataset("a window takes a prefix and a suffix of one token at least")

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Sequence[int]) -> "Windows":
        """The windows at these positions, in this order."""
        at = np.asarray(chosen, dtype=np.int64)
        return Windows([self.prefixes[row] for row in at], [self.suffixes[row] for row in at], self.rows[at])


@dataclass(frozen=True)
class Decoding:
    """How a model picks its next token: by its probabilities at a temperature (0: the likeliest), among the `top_k`
    likeliest where given."""

    temperature: float = 1.0
    top_k: int | None = None


@dataclass(frozen=True)
class Forced:
    """Every suffix token of N windows, in their order: log-probability under the decoding rule (nats, float64 [M]),
    whether it was the likeliest one (bool [M]) and its window (int64 [M])."""

    log_probs: NDArray[np.float64]
    correct: NDArray[np.bool_]
    rows: NDArray[np.int64]


def record_windows(task: CausalLanguageModelling, records: Records) -> Windows:
    """One window a record: what bears no loss (the prompt; of a plain text its first token), and the rest."""
    encoding = task.encode(records.take(range(len(records))))
    texts, first = _texts(encoding), encoding.first.tolist()
    cut = list(zip(texts, first, strict=True))
    return Windows([text[:at] for text, at in cut], [text[at:] for text, at in cut], np.arange(len(texts)))


def half_windows(task: CausalLanguageModelling, records: Records, most: int = MOST_NEW) -> Windows:
    """One window a record: half of what it says, after its prompt if it has one, and at most so many tokens of the
    rest."""
    whole = record_windows(task, records)
    halves = [max(1, len(suffix) // 2) if len(suffix) > 1 else 0 for suffix in whole.suffixes]
    return Windows(
        [prefix + suffix[:half] for prefix, suffix, half in zip(whole.prefixes, whole.suffixes, halves, strict=True)],
        [suffix[half : half + most] for suffix, half in zip(whole.suffixes, halves, strict=True)],
        whole.rows,
    )


def told_windows(task: CausalLanguageModelling, records: Records) -> Windows:
    """Windows over what each record says: SUFFIX tokens from where it begins to say it, and so on until its end.

    A record with a prompt says its completion, and the prefix is all that stands before the suffix. A plain text of
    PREFIX + SUFFIX tokens or more has prefixes of PREFIX tokens; a shorter one is cut in the middle. The last suffix
    of a record is shorter, and left out where it is shorter than half a suffix and not the only one.
    """
    encoding, prompted = task.encode(records.take(range(len(records)))), "prompt" in records.roles
    found: list[tuple[int, list[int], list[int]]] = []
    for row, (text, first) in enumerate(zip(_texts(encoding), encoding.first.tolist(), strict=True)):
        begin = first if prompted else min(PREFIX, len(text) // 2)
        for start in range(begin, len(text), SUFFIX):
            suffix = text[start : start + SUFFIX]
            if start == begin or 2 * len(suffix) >= SUFFIX:
                found.append((row, text[0 if prompted else start - begin : start], suffix))
    rows = np.array([row for row, _, _ in found], dtype=np.int64)
    return Windows([prefix for _, prefix, _ in found], [suffix for _, _, suffix in found], rows)


def joined(parts: Sequence[Windows]) -> Windows:
    """The windows of all parts, one after the other; their rows are those of their own parts."""
    rows = [part.rows for part in parts] or [np.zeros(0, dtype=np.int64)]
    prefixes = [prefix for part in parts for prefix in part.prefixes]
    return Windows(prefixes, [suffix for part in parts for suffix in part.suffixes], np.concatenate(rows))


def _texts(encoding: TextEncoding) -> list[list[int]]:
    return [part.tolist() for part in np.split(encoding.tokens, encoding.starts[1:-1])]


@torch.no_grad()
def forced(
    loaded: LoadedModel,
    windows: Windows,
    context: Context,
    decoding: Decoding | None = None,
    batch_size: int = BATCH_SIZE,
) -> Forced:
    """Read each suffix behind its prefix once; temperature 1 where no rule is given. Raises BadDataset for a model
    that is no language model and for windows longer than its positions."""
    task = _language(loaded, max((len(p) + len(s) for p, s in _pairs(windows)), default=0))
    rule = decoding or Decoding()
    encoding = laid_out([p + s for p, s in _pairs(windows)], [len(p) for p in windows.prefixes])
    order = np.argsort(encoding.lengths, kind="stable")
    batches = [order[rows.start : rows.stop] for rows in chunks(len(windows), batch_size)]
    meter = Meter(context, len(batches), "reading suffixes")
    found: list[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]] = []
    loaded.model.eval()
    for done, rows in enumerate(batches, 1):
        batch = {name: value.to(context.device) for name, value in task.batch(encoding, rows.tolist()).items()}
        logits, targets, places = task.predictions(loaded.model, batch)
        log_p = _log_probabilities(logits, rule).gather(1, targets.unsqueeze(1))[:, 0]
        correct = logits.argmax(dim=1) == targets
        found.append((log_p.double().cpu().numpy(), correct.cpu().numpy(), rows[places.cpu().numpy()]))
        meter.step(done)
    if not found:
        return Forced(np.zeros(0), np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.int64))
    log_probs, right, owners = (np.concatenate(part) for part in zip(*found, strict=True))
    back = np.argsort(owners, kind="stable")
    return Forced(log_probs[back], right[back], owners[back])


def _log_probabilities(logits: Tensor, rule: Decoding) -> Tensor:
    """Of all tokens [M, V] under a decoding rule, nats; -inf for those that it never picks. Ties at the edge of the
    `top_k` stay in."""
    if rule.temperature <= 0:
        certain = torch.full_like(logits, -torch.inf)
        return certain.scatter_(1, logits.argmax(dim=1, keepdim=True), 0.0)
    scaled = logits / rule.temperature
    if rule.top_k is not None and rule.top_k < logits.shape[1]:
        least = scaled.topk(rule.top_k, dim=1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    return torch.log_softmax(scaled, dim=1)


@torch.no_grad()
def sampled(
    loaded: LoadedModel,
    windows: Windows,
    context: Context,
    samples: int = SAMPLES,
    decoding: Decoding | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[list[str]]:
    """Continuations [N, samples] of each prefix, as long as its suffix or until the end token, by the context's seed.

    Windows share a batch where prefixes are equally long, so that nothing is padded; the same seed, windows and batch
    size give the same texts on any device up to rounding. Raises BadDataset as `forced` does.
    """
    task = _language(loaded, max((len(p) + len(s) for p, s in _pairs(windows)), default=0))
    rule, draw = decoding or Decoding(), generator(context.seed, _STREAM)
    batches = list(_alike(windows, max(1, batch_size // samples)))
    meter = Meter(context, len(batches), "sampling continuations")
    texts: list[list[str]] = [[] for _ in range(len(windows))]
    loaded.model.eval()
    for done, rows in enumerate(batches, 1):
        ids = torch.tensor([windows.prefixes[row] for row in rows], device=context.device)
        length = max(len(windows.suffixes[row]) for row in rows)
        made = _continued(loaded, ids.repeat_interleave(samples, dim=0), length, rule, draw).tolist()
        for at, row in enumerate(rows):
            own, size = made[at * samples : (at + 1) * samples], len(windows.suffixes[row])
            texts[row] = [_decoded(task, tokens[:size]) for tokens in own]
        meter.step(done)
    return texts


def _continued(loaded: LoadedModel, ids: Tensor, length: int, rule: Decoding, draw: torch.Generator) -> Tensor:
    """`length` tokens [B, length] after these [B, T], each drawn given all before it."""
    past, made = None, []
    for _ in range(length):
        answer = loaded.model(input_ids=ids, past_key_values=past, use_cache=True)
        past = answer.past_key_values
        ids = _drawn(_log_probabilities(answer.logits[:, -1].float(), rule), draw)
        made.append(ids)
    return torch.cat(made, dim=1)


def _drawn(log_p: Tensor, draw: torch.Generator) -> Tensor:
    """One token [B, 1] for each distribution [B, V]: random numbers come from the CPU, whatever the device is."""
    reached = log_p.double().exp().cumsum(dim=1)
    wanted = torch.rand(len(log_p), 1, generator=draw, dtype=torch.float64).to(log_p.device) * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True).clamp(max=log_p.shape[1] - 1)


def _alike(windows: Windows, size: int) -> Iterator[list[int]]:
    lengths = np.array([len(prefix) for prefix in windows.prefixes])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length).tolist()
        for part in chunks(len(rows), size):
            yield rows[part.start : part.stop]


def _decoded(task: CausalLanguageModelling, tokens: list[int]) -> str:
    end = int(task.tokenizer.eos_token_id)
    kept = tokens[: tokens.index(end)] if end in tokens else tokens
    return str(task.tokenizer.decode(kept, skip_special_tokens=True))


def _pairs(windows: Windows) -> Iterator[tuple[list[int], list[int]]]:
    return zip(windows.prefixes, windows.suffixes, strict=True)


def _language(loaded: LoadedModel, longest: int) -> CausalLanguageModelling:
    if not isinstance(loaded.task, CausalLanguageModelling):
        raise BadDataset("texts can be extracted from language models alone")
    if longest > loaded.task.max_length:
        raise BadDataset(f"a window has {longest} tokens, but the model reads {loaded.task.max_length}: shorten it")
    return loaded.task
