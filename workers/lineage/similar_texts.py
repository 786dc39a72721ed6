"""Pairs of texts that say nearly the same: sets of shingles, MinHash, banding, and the exact figure for what is left.

A text becomes a set of word 3-grams, a short one of character 5-grams. MinHash (Broder 1997) turns a set into a
signature whose agreement estimates the Jaccard similarity |A & B| / |A | B|; texts that agree on a whole band of it
become candidates (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3), and every candidate is decided
by its exact similarity. So no pair is listed wrongly; one of similarity 0.8 is missed with probability
(1 - 0.8 ** 6) ** 21 = 0.2 %, a closer one more rarely.

The library's own index answers whole buckets, which makes a crowd of N nearly equal texts cost N squared. Here the
bands are sorted instead, and within a bucket a text meets the few that follow it, in another order in each band.
"""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.8
BANDS, BAND_ROWS = 21, 6
SIGNATURE = BANDS * BAND_ROWS
SHORT_WORDS = 16
"""Texts with fewer words are compared by characters: one changed word would touch most of their word 3-grams."""
NEIGHBOURS, CROWD = 8, 32
"""How many of a bucket a text meets per band; how many near-duplicates are enough for one text."""
_SLACK = 4 * (THRESHOLD * (1 - THRESHOLD) / SIGNATURE) ** 0.5
_SEED = 1
_BLOCK = 1 << 16
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return _WORD.findall(_folded(text))


def word_shingles(words: Sequence[str]) -> NDArray[np.uint32]:
    """Sorted distinct hashes of each three words in a row; of fewer words: of all in one."""
    codes = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words]
    return _windows(np.array(codes, dtype=np.uint64), 3)


def character_shingles(text: str) -> NDArray[np.uint32]:
    """Sorted distinct hashes of each five characters in a row, without case, white space as one blank."""
    plain = " ".join(_folded(text).split()).encode("utf-32-le", "surrogatepass")
    return _windows(np.frombuffer(plain, dtype="<u4").astype(np.uint64), 5)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _windows(codes: NDArray[np.uint64], width: int) -> NDArray[np.uint32]:
    """One hash for each `width` codes in a row."""
    count = max(1, len(codes) - width + 1)
    hashes = np.full(count, min(len(codes), width), dtype=np.uint64)
    for at in range(min(width, len(codes))):
        hashes = _mixed(hashes ^ codes[at : at + count])
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 generator's increment and finaliser (Steele et al. 2014), so that 0 is no fixed point."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Sets:
    """N sets of hashes end to end: set i is `hashes[starts[i]:starts[i + 1]]`, sorted, and belongs to `rows[i]`."""

    hashes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> NDArray[np.uint32]:
        return self.hashes[self.starts[at] : self.starts[at + 1]]

    def similarity(self, left: int, right: int) -> float:
        """Exact Jaccard similarity of two sets."""
        first, second = self[left], self[right]
        common = len(np.intersect1d(first, second, assume_unique=True))
        return common / (len(first) + len(second) - common)


def signatures(sets: Sets) -> NDArray[np.uint32]:
    """MinHash signatures [N, SIGNATURE]: for each of so many random functions the least value over a set.

    The functions are multiply-shift (Dietzfelbinger et al. 1997), on hashes that are well mixed already.
    """
    random = np.random.default_rng(_SEED)
    factors = random.integers(0, 1 << 64, SIGNATURE, dtype=np.uint64) | np.uint64(1)
    terms = random.integers(0, 1 << 64, SIGNATURE, dtype=np.uint64)
    made = np.empty((len(sets), SIGNATURE), dtype=np.uint32)
    begin = 0
    while begin < len(sets):
        # No set is empty; one that is larger than a block has a block of its own.
        end = max(begin + 1, int(np.searchsorted(sets.starts, sets.starts[begin] + _BLOCK, side="right")) - 1)
        hashes = sets.hashes[sets.starts[begin] : sets.starts[end]].astype(np.uint64)
        starts = sets.starts[begin:end] - sets.starts[begin]
        for column, (factor, term) in enumerate(zip(factors, terms, strict=True)):
            made[begin:end, column] = np.minimum.reduceat((hashes * factor + term) >> np.uint64(32), starts)
        begin = end
    return made


def similar_pairs(texts: Iterable[str], report: Callable[[int], None]) -> list[tuple[int, int, float]]:
    """Pairs of positions (i < j) with a similarity of at least THRESHOLD, and that similarity; sorted, each once.

    `report` is told after each text how many have been read. In a crowd of more than CROWD near-duplicates of one
    text some of its pairs are left out, never all of them.
    """
    by_words, by_characters = _SetsMaker(), _SetsMaker()
    for row, text in enumerate(texts):
        words = words_of(text)
        # Around the limit a text is compared both ways, or two of which one is a word longer would never meet.
        if len(words) >= SHORT_WORDS:
            by_words.add(row, word_shingles(words))
        if len(words) < SHORT_WORDS / THRESHOLD:
            by_characters.add(row, character_shingles(text))
        report(row + 1)
    best: dict[tuple[int, int], float] = {}
    for maker in (by_words, by_characters):
        sets = maker.sets()
        for left, right, similarity in _pairs(sets, signatures(sets)):
            pair = (int(sets.rows[left]), int(sets.rows[right]))
            best[pair] = max(similarity, best.get(pair, 0.0))
    return [(left, right, similarity) for (left, right), similarity in sorted(best.items())]


class _SetsMaker:
    def __init__(self) -> None:
        self._rows: list[int] = []
        self._hashes: list[NDArray[np.uint32]] = []

    def add(self, row: int, hashes: NDArray[np.uint32]) -> None:
        self._rows.append(row)
        self._hashes.append(hashes)

    def sets(self) -> Sets:
        starts = np.concatenate([[0], np.cumsum([len(part) for part in self._hashes])]).astype(np.int64)
        hashes = np.concatenate([np.zeros(0, dtype=np.uint32), *self._hashes])
        self._hashes.clear()
        return Sets(hashes, starts, np.array(self._rows, dtype=np.int64))


def _pairs(sets: Sets, signed: NDArray[np.uint32]) -> list[tuple[int, int, float]]:
    """Positions (i < j) in `sets` and their similarity."""
    found: dict[tuple[int, int], float] = {}
    times = np.zeros(len(sets), dtype=np.int64)
    for band in range(BANDS):
        left, right = _candidates(signed, band)
        wanted = np.minimum(times[left], times[right]) < CROWD
        left, right = _alike(signed, left[wanted], right[wanted])
        for pair in zip(left.tolist(), right.tolist(), strict=True):
            if pair not in found and (similarity := sets.similarity(*pair)) >= THRESHOLD:
                found[pair] = similarity
                times[list(pair)] += 1
    return [(left, right, similarity) for (left, right), similarity in found.items()]


def _candidates(signed: NDArray[np.uint32], band: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (i < j) that agree on a band and are neighbours when its bucket is sorted by the values that follow."""
    values = np.take(signed, range(band * BAND_ROWS, (band + 2) * BAND_ROWS), axis=1, mode="wrap")
    keys = np.zeros(len(signed), dtype=np.uint64)
    for column in range(BAND_ROWS):
        keys = _mixed(keys ^ values[:, column])
    sorting: list[NDArray[Any]] = [values[:, column] for column in range(2 * BAND_ROWS - 1, BAND_ROWS - 1, -1)]
    order = np.lexsort([*sorting, keys])  # the last one counts first
    ordered = keys[order]
    parts = []
    for gap in range(1, NEIGHBOURS + 1):
        same = np.flatnonzero(ordered[gap:] == ordered[:-gap])
        parts.append(np.stack([order[same], order[same + gap]]))
    pairs = np.concatenate(parts, axis=1)
    return pairs.min(axis=0), pairs.max(axis=0)


def _alike(
    signed: NDArray[np.uint32], left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those pairs whose signatures do not speak against the threshold, by four standard errors."""
    kept = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _BLOCK):
        block = slice(start, start + _BLOCK)
        kept[block] = (signed[left[block]] == signed[right[block]]).mean(axis=1) >= THRESHOLD - _SLACK
    return left[kept], right[kept]
