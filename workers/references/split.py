"""Who trains on whom: complementary pairs of subject-disjoint halves, drawn by a keyed hash and never changed again.

Members 2p and 2p + 1 are the pair p. Each subject that takes part lies in one half of every pair, so that exactly one
member of each pair has never seen it: its OUT member. A record that no member trains on (held out, or served while
the pool is trained on reserved people) is OUT of both; a coin per subject and pair says which of the two scores it, so
that it is judged by as many references as any other record. Statistics with equally many references have equal noise,
which is what makes records comparable.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import BadDataset, BadParameters

Strategy = Literal["halves", "reserved_split"]
Side = Literal["method", "gate"]

SMALLEST_POOL = 8
BOTH_SIDES = 16
LARGEST_POOL = 1024


@dataclass(frozen=True)
class Split:
    """The plan of a pool for N training and M held-out records and P pairs.

    `trainable` bool [N]: whether members train on the record. `out` uint8 [N, P] and `held_out` uint8 [M, P]: the
    half (0 or 1) of each pair whose member counts as the record's OUT reference.
    """

    trainable: NDArray[np.bool_]
    out: NDArray[np.uint8]
    held_out: NDArray[np.uint8]

    @property
    def count(self) -> int:
        """Number of members K."""
        return 2 * int(self.out.shape[1])

    def trained_by(self, number: int) -> NDArray[np.bool_]:
        """Which training records [N] are in this member's half."""
        return np.asarray(self.trainable & (self.out[:, number // 2] != number % 2))

    def out_of(self, number: int) -> NDArray[np.bool_]:
        """Which training records [N] this member is an OUT reference of."""
        return np.asarray(self.out[:, number // 2] == number % 2)

    def held_out_of(self, number: int) -> NDArray[np.bool_]:
        """Which held-out records [M] this member is an OUT reference of."""
        return np.asarray(self.held_out[:, number // 2] == number % 2)


def sides_of(count: int) -> dict[Side, tuple[int, ...]]:
    """Pairs of the methods' and of the gate's side; the gate gets the odd one.

    No method may train towards the references that judge it, so a pool is split once. Below 16 members one side alone
    would be too small to judge with, and everything is the gate's. Raises BadParameters for a size that makes no pool.
    """
    if count < SMALLEST_POOL:
        raise BadParameters(f"{count} references make no pool: take at least {SMALLEST_POOL}, or do without")
    if count % 2:
        raise BadParameters(f"{count} references are odd: they come in pairs, take {count + 1}")
    if count > LARGEST_POOL:
        raise BadParameters(f"{count} references are too many: take at most {LARGEST_POOL}")
    pairs = range(count // 2)
    if count < BOTH_SIDES:
        return {"method": (), "gate": tuple(pairs)}
    return {"method": tuple(pairs[1::2]), "gate": tuple(pairs[::2])}


def pool_key(seed: int, data_digest: str) -> bytes:
    """The key of all draws of a pool, 32 bytes: other data or another seed gives unrelated halves."""
    return hashlib.sha256(f"lethe/reference-pool/{seed}/{data_digest}".encode()).digest()


def member_seed(seed: int, number: int, generation: int) -> int:
    """The seed of a member's training, different for every member and generation."""
    return int(np.random.SeedSequence([seed, number, generation]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def plan_split(
    subjects: NDArray[Any],
    held_out_subjects: NDArray[Any],
    count: int,
    key: bytes,
    reserved: NDArray[np.bool_] | None = None,
) -> Split:
    """Draw the halves of a pool of `count` members from the subject of each record.

    `reserved` bool [N] marks the only records that members train on (strategy "reserved_split"); whole subjects, as
    `reserve_subjects` answers. None: all of them. Raises BadParameters for a size that makes no pool, BadDataset where
    there are not two subjects to divide.
    """
    sides_of(count)
    trainable = np.ones(len(subjects), dtype=bool) if reserved is None else np.asarray(reserved, dtype=bool)
    pairs = count // 2
    out = _coins(subjects, pairs, key)
    rows = np.flatnonzero(trainable)
    names, inverse, sizes = np.unique(subjects[rows], return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise BadDataset(f"references need at least two people to divide, there are {len(names)}")
    hashes = _hashes(names, key)
    for pair in range(pairs):
        halves = _cut(_mixed(hashes, _word(key, f"half {pair}")), sizes)
        out[rows, pair] = 1 - halves[inverse]
    return Split(trainable, out, _coins(held_out_subjects, pairs, key))


def reserve_subjects(subjects: NDArray[Any], share: float, key: bytes) -> NDArray[np.bool_]:
    """Mark the records [N] of people whose data alone references are trained on, drawn by keyed hash.

    Takes people until `share` of the records is reached. Raises BadParameters for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise BadParameters(f"the reserved share {share:g} must lie between 0 and 1")
    names, inverse, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    order = np.argsort(_mixed(_hashes(names, key), _word(key, "reserve")), kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(names), dtype=bool)
    chosen[order] = before < share * len(subjects)
    return np.asarray(chosen[inverse])


def _cut(order_of: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Half (0 or 1) of each subject: shuffled, then cut where the numbers of records are most nearly equal."""
    order = np.argsort(order_of, kind="stable")
    filled = np.cumsum(sizes[order])[:-1]
    first = 1 + int(np.argmin(np.abs(2 * filled - sizes.sum())))
    halves = np.ones(len(sizes), dtype=np.uint8)
    halves[order[:first]] = 0
    return halves


def _coins(subjects: NDArray[Any], pairs: int, key: bytes) -> NDArray[np.uint8]:
    """A fair keyed bit [N, P] for each record and pair, the same for all records of a subject."""
    names, inverse = np.unique(subjects, return_inverse=True)
    hashes = _hashes(names, key)
    bits = np.zeros((len(names), pairs), dtype=np.uint8)
    for pair in range(pairs):
        bits[:, pair] = _mixed(hashes, _word(key, f"coin {pair}")) >> np.uint64(63)
    return np.asarray(bits[inverse])


def _hashes(names: NDArray[Any], key: bytes) -> NDArray[np.uint64]:
    """Keyed BLAKE2b (RFC 7693) of each name, 64 bits."""
    made = b"".join(hashlib.blake2b(str(name).encode(), key=key, digest_size=8).digest() for name in names)
    return np.frombuffer(made, dtype="<u8").astype(np.uint64)


def _word(key: bytes, purpose: str) -> np.uint64:
    digest = hashlib.blake2b(purpose.encode(), key=key, digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mixed(hashes: NDArray[np.uint64], word: np.uint64) -> NDArray[np.uint64]:
    """Independent-looking 64 bits for one purpose (finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = hashes ^ word
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
