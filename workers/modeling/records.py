"""What the engine asks of a data set, and the keyed split of the held-out subjects.

`Records` is the whole interface: the service's Parquet, JSONL and CSV tables implement it, and so does any small
class in a test. Values come by role (image, label, text, prompt, completion), never by column name.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SELECTION_MODULUS = 4


class Records(Protocol):
    """Records of one task in a fixed order, read by position.

    `ids` and `subjects` are arrays of strings of length `len(self)`; `roles` names what `take` answers.
    """

    @property
    def ids(self) -> NDArray[Any]: ...

    @property
    def subjects(self) -> NDArray[Any]: ...

    @property
    def task(self) -> str: ...

    @property
    def roles(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Role -> values in the order asked for; image -> encoded bytes, label -> int, the others -> str."""
        ...

    def subset(self, indices: Sequence[int]) -> "Records":
        """The records at these positions, in this order."""
        ...

    def rows_of(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Positions of these record ids; an unknown id is BadDataset."""
        ...


def chunks(count: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most `size` that cover `range(count)`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def held_out_key(digest: str) -> bytes:
    """The key of the split: the first 32 bytes of the held-out set's digest, so that every caller agrees."""
    return bytes.fromhex(digest)[:32]


def split_held_out(held_out: Records, key: bytes) -> tuple[Records, Records]:
    """Divide held-out records into (selection, certification) by subject.

    A subject belongs to the selection quarter when its keyed BLAKE2b digest (RFC 7693) is 0 modulo 4. Methods
    and planning see only the selection, the gate only the certification records.
    """
    names, inverse = np.unique(np.asarray(held_out.subjects, dtype=str), return_inverse=True)
    selected = np.fromiter((_selected(str(name), key) for name in names), dtype=bool, count=len(names))
    mask = selected[inverse] if len(names) else np.zeros(0, dtype=bool)
    return held_out.subset(np.flatnonzero(mask).tolist()), held_out.subset(np.flatnonzero(~mask).tolist())


def _selected(subject: str, key: bytes) -> bool:
    digest = hashlib.blake2b(subject.encode(), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big") % SELECTION_MODULUS == 0
