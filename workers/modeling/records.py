"""What the engine asks of a data set, records in memory and end to end, and the keyed split of the held-out subjects.

`Records` is the whole interface: the service's Parquet, JSONL and CSV tables implement it, and so does any small
class in a test. Values come by role (image, label, text, prompt, completion), never by column name.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import BadDataset

SELECTION_MODULUS = 4
STORED_BYTES = 16
_CHUNK = 1024


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

    def column(self, role: str) -> list[Any]:
        """The values of one role alone, of all records in their order."""
        ...

    def subset(self, indices: Sequence[int]) -> "Records":
        """The records at these positions, in this order."""
        ...

    def rows_of(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Positions of these record ids; an unknown id is BadDataset."""
        ...


class MemoryRecords:
    """Records held in lists: `columns` maps each role to one value per id. Implements `Records`."""

    def __init__(
        self,
        task: str,
        ids: Sequence[str] | NDArray[Any],
        subjects: Sequence[str] | NDArray[Any],
        columns: Mapping[str, Sequence[Any]],
    ) -> None:
        self.task = task
        self.ids: NDArray[Any] = np.asarray(ids, dtype=str)
        self.subjects: NDArray[Any] = np.asarray(subjects, dtype=str)
        self.columns = {role: list(values) for role, values in columns.items()}
        self.roles = tuple(columns)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Role -> values in the order asked for."""
        return {role: [values[at] for at in indices] for role, values in self.columns.items()}

    def column(self, role: str) -> list[Any]:
        """The values of one role, of all records."""
        return list(self.columns[role])

    def subset(self, indices: Sequence[int]) -> "MemoryRecords":
        """The records at these positions, in this order; shares the values."""
        rows = np.asarray(indices, dtype=np.int64)
        return MemoryRecords(self.task, self.ids[rows], self.subjects[rows], self.take(rows.tolist()))

    def rows_of(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Positions of these record ids. Raises BadDataset when one is not there."""
        return _positions(self.ids, ids)


class _Joined:
    """Rows of one set of records followed by another; values stay where they are."""

    def __init__(self, first: Records, second: Records, rows: NDArray[np.int64]) -> None:
        self._parts, self._rows = (first, second), rows
        self.task, self.roles = first.task, first.roles

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def ids(self) -> NDArray[Any]:
        return np.asarray(np.concatenate([part.ids for part in self._parts])[self._rows])

    @cached_property
    def subjects(self) -> NDArray[Any]:
        return np.asarray(np.concatenate([part.subjects for part in self._parts])[self._rows])

    def take(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        first, second = self._parts
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        late = rows >= len(first)
        values = (first.take(rows[~late].tolist()), second.take((rows[late] - len(first)).tolist()))
        sources = late.tolist()
        found = {}
        for role in self.roles:
            parts = (iter(values[0][role]), iter(values[1][role]))
            found[role] = [next(parts[source]) for source in sources]
        return found

    def column(self, role: str) -> list[Any]:
        values = [value for part in self._parts for value in part.column(role)]
        return [values[row] for row in self._rows.tolist()]

    def subset(self, indices: Sequence[int]) -> Records:
        return _Joined(*self._parts, self._rows[np.asarray(indices, dtype=np.int64)])

    def rows_of(self, ids: Iterable[str]) -> NDArray[np.int64]:
        return _positions(self.ids, ids)


def joined(first: Records, second: Records) -> Records:
    """The records of `first` and then those of `second`, without copying their values.

    Raises BadDataset when the two are of different tasks or roles.
    """
    if (first.task, set(first.roles)) != (second.task, set(second.roles)):
        told = f"{first.task} with {', '.join(first.roles)}, and {second.task} with {', '.join(second.roles)}"
        raise BadDataset(f"records of different kinds cannot be joined: {told}")
    if not len(second):
        return first
    return _Joined(first, second, np.arange(len(first) + len(second), dtype=np.int64))


def _positions(known: NDArray[Any], ids: Iterable[str]) -> NDArray[np.int64]:
    where = {name: at for at, name in enumerate(known.tolist())}
    wanted = list(ids)
    missing = sum(name not in where for name in wanted)
    if missing:
        raise BadDataset(f"{missing} of {len(wanted)} record ids are not in the data")
    return np.array([where[name] for name in wanted], dtype=np.int64)


def chunks(count: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most `size` that cover `range(count)`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def stored_hashes(records: Records) -> list[bytes]:
    """16 bytes of SHA-256 over each record as it is stored: an image that was packed anew is another one."""
    hashes = []
    for rows in chunks(len(records), _CHUNK):
        columns = records.take(rows)
        roles = sorted(columns)
        for values in zip(*(columns[role] for role in roles), strict=True):
            contents = (value if isinstance(value, bytes) else str(value).encode() for value in values)
            told = b"".join(part for content in contents for part in (len(content).to_bytes(8, "big"), content))
            hashes.append(hashlib.sha256(told).digest()[:STORED_BYTES])
    return hashes


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
