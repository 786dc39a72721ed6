"""People whose records are never trained on, so that there is somebody to compare forgotten ones with.

Where no held-out set is given, one is set aside before any training: records that a coin kept out differ from trained
ones in nothing but having been trained on (matching held-out records is second best, with other data it fails). The
coin is keyed and per person, so that nobody lies on both sides and the draw can be repeated but not foreseen.
"""

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.catalogue.lineage import LINEAGE
from service.errors import BadParameters
from workers.lineage.tables import read_table, write_table
from workers.modeling.directories import sha256_json
from workers.modeling.records import Records, chunks

RESERVE = "reserve.parquet"
FEWEST_SUBJECTS = 40
WHOLE_STRATUM = 20
"""Subjects of a stratum from which on it always gives at least one; smaller ones are put together."""
_CHUNK = 1024
_COLUMN, _TRAINED = "record_id", "training_records.parquet"


def why_nobody(records: Records) -> str | None:
    """Why `split_reserve` sets nobody aside, None where it does."""
    people = len(np.unique(np.asarray(records.subjects)))
    if people >= FEWEST_SUBJECTS:
        return None
    return f"nobody is set aside: the data holds {people} people, {FEWEST_SUBJECTS} are the fewest"


def split_reserve(records: Records, share: float, key: bytes) -> tuple[Records, Records]:
    """(records to train on, records set aside): a share of the subjects of each stratum with all their records.

    Strata are the most frequent label of a subject, or for language models the quarter that the amount of its text
    lies in. Within a stratum subjects are ordered by keyed BLAKE2b (RFC 7693) and the first are taken. With fewer than
    FEWEST_SUBJECTS nobody is set aside (`why_nobody`). Raises BadParameters for a share outside 0..0.5.
    """
    if not 0 < share <= 0.5:
        raise BadParameters(f"the share {share:g} of people to set aside must lie above 0 and not above 0.5")
    if why_nobody(records) is not None:
        return records, records.subset([])
    names, inverse = np.unique(np.asarray(records.subjects, dtype=str), return_inverse=True)
    strata = _majority_labels(records, inverse) if "label" in records.roles else _size_classes(records, inverse)
    chosen = _first_of_each(names, _merged(strata), share, key)[inverse]
    return records.subset(np.flatnonzero(~chosen).tolist()), records.subset(np.flatnonzero(chosen).tolist())


def _first_of_each(names: NDArray[Any], strata: NDArray[np.int64], share: float, key: bytes) -> NDArray[np.bool_]:
    digests = [
        hashlib.blake2b(name.encode(), key=key, digest_size=16, person=b"lethe/reserve").digest() for name in names
    ]
    drawn = np.array(sorted(range(len(names)), key=digests.__getitem__), dtype=np.int64)
    order = drawn[np.argsort(strata[drawn], kind="stable")]
    chosen = np.zeros(len(names), dtype=bool)
    for members in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        count = int(share * len(members) + 0.5)
        chosen[members[: max(count, len(members) >= WHOLE_STRATUM)]] = True
    return chosen


def _merged(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with all small strata as one, whose share would be rounded away in each of them."""
    _, inverse, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(sizes[inverse] < WHOLE_STRATUM, -1, inverse)


def _majority_labels(records: Records, inverse: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most frequent label of each subject, the smallest of several."""
    labels = np.concatenate([records.take(rows)["label"] for rows in chunks(len(records), _CHUNK)]).astype(np.int64)
    pairs, counts = np.unique(np.stack([inverse, labels], axis=1), axis=0, return_counts=True)
    best = pairs[np.lexsort([pairs[:, 1], -counts, pairs[:, 0]])]
    return np.asarray(best[np.unique(best[:, 0], return_index=True)[1], 1])


def _size_classes(records: Records, inverse: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which quarter of the subjects (0..3) each lies in by the UTF-8 bytes of all its text."""
    sizes: list[int] = []
    for rows in chunks(len(records), _CHUNK):
        columns = records.take(rows)
        values = zip(*(columns[role] for role in records.roles), strict=True)
        sizes += [sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) for texts in values]
    totals = np.bincount(inverse, weights=sizes)
    return np.searchsorted(np.quantile(totals, [0.25, 0.5, 0.75]), totals).astype(np.int64)


def reserve_digest(ids: Iterable[str]) -> str:
    """SHA-256 in hex of which records are set aside, whatever their order: the digest of a held-out set."""
    return sha256_json(sorted(ids))


def write_reserve(ids: Collection[str], folder: Path) -> None:
    """reserve.parquet with these record ids in a folder, mode 0600; nothing where nobody is set aside."""
    if ids:
        write_table(pa.table({_COLUMN: pa.array(sorted(ids), pa.string())}), folder / RESERVE)


def read_reserve(folder: Path) -> set[str]:
    """The record ids that were set aside; none where there is no file. Raises BadModel for a damaged one."""
    table = read_table(folder / RESERVE, [_COLUMN])
    return set() if table is None else set(table[_COLUMN].to_pylist())


def forget_reserved(folder: Path, gone: Collection[str]) -> int:
    """Take records out of reserve.parquet in a folder; answers how many it named. Raises BadModel for a damaged file.

    Nothing else changes: lineage.json goes on to say what the file was when the training ended, since the training
    record names its digest, and so does the version's. Replay checks the log and the records, which never name anybody
    of the reserve.
    """
    table = read_table(folder / RESERVE, [_COLUMN])
    if table is None:
        return 0
    named = np.isin(np.array(table[_COLUMN].to_pylist(), dtype=str), np.array(sorted(gone), dtype=str))
    if named.any():
        write_table(table.filter(pa.array(~named)), folder / RESERVE)
    return int(named.sum())


def reserve_of(model_dir: Path) -> set[str]:
    """Ids of the records that a model's training set aside, and that its list of trained records does not name.

    Where the two disagree a record counts as trained on: nobody is told that nothing was learned from them in error.
    """
    reserve = read_reserve(model_dir / LINEAGE)
    seen = read_table(model_dir / _TRAINED, [_COLUMN]) if reserve else None
    return reserve - set(seen[_COLUMN].to_pylist()) if seen is not None else reserve
