"""Which never-trained canary each planted one is put against, once and for all and without looking at any score.

The wager over publications needs guesses whose chance is 1/2 whatever was guessed before: each planted canary against
one of its own kind outside, no canary in two of the pairs. Both sides are put in an order that the sealed nonce draws,
so that nobody who chooses what is deleted chooses what it is compared with.
"""

import hashlib

import numpy as np

from workers.lineage.canaries import CanarySet


def opposites(canaries: CanarySet) -> dict[str, str]:
    """Record id of a planted canary -> that of its opposite; where a kind has fewer outside, some have none.

    The same for every version of a line, whatever was spent meanwhile.
    """
    names = np.asarray(canaries.records.ids, dtype=str)
    made: dict[str, str] = {}
    for kind in np.unique(canaries.kinds):
        ours, theirs = (
            sorted(names[(canaries.kinds == kind) & side].tolist(), key=lambda name: _place(canaries.nonce, name))
            for side in (canaries.coins, ~canaries.coins)
        )
        made |= dict(zip(ours, theirs, strict=False))
    return made


def _place(nonce: bytes, name: str) -> bytes:
    return hashlib.blake2b(f"opposite {name}".encode(), key=nonce, digest_size=32).digest()
