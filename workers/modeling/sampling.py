"""Seeded samples of records, for measurements that need not see all of them."""

import torch

from workers.modeling.devices import generator

_SAMPLE = 14


def seeded_rows(count: int, limit: int, seed: int, stream: int = _SAMPLE) -> list[int]:
    """At most `limit` of the rows 0..count-1, ascending; the same for the same seed and stream."""
    if count <= limit:
        return list(range(count))
    return sorted(torch.randperm(count, generator=generator(seed, stream))[:limit].tolist())
