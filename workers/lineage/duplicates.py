"""What a record says, as a hash, and which records say the same or nearly the same.

A model trained without a record still knows what its near-duplicates tell it, so a report names how many of the
forgotten records have one that stays. Texts are compared as sets of shingles (workers/lineage/similar_texts.py).

Images are compared by exact content only. Nearness of pixels or of perceptual hashes says little about a common
origin: a shifted or brightened copy is far away, while scans of the same digit or pictures of the same article by
different people are close, most of all in small images, and a table full of such pairs would hide the true ones. What
would help is nearness in the space of a model that knows the domain, which this table must not depend on.
"""

import hashlib
import io
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.errors import BadDataset
from workers.lineage.similar_texts import similar_pairs
from workers.lineage.tables import read_table, write_table
from workers.modeling.records import Records, chunks

DUPLICATES = "duplicates.parquet"
HASH_BYTES = 16
_CHUNK = 1024
_SCHEMA = pa.schema(
    [("left", pa.string()), ("right", pa.string()), ("similarity", pa.float32()), ("kind", pa.string())]
)


def _quiet(done: int) -> None:
    del done


def content_digests(records: Records, report: Callable[[int], None] = _quiet) -> list[bytes]:
    """SHA-256 of what each record says: decoded pixels with shape and mode, texts in Unicode NFC, the label.

    Ids and subjects are no part of it, nor how an image is packed. `report` is told how many records are done. Raises
    BadDataset for an image that cannot be decoded.
    """
    digests: list[bytes] = []
    roles = sorted(records.roles)
    for rows in chunks(len(records), _CHUNK):
        columns = records.take(rows)
        for values in zip(*(columns[role] for role in roles), strict=True):
            digest = hashlib.sha256(b"lethe/record/1")
            for role, value in zip(roles, values, strict=True):
                for part in (role.encode(), *_content(role, value)):
                    digest.update(len(part).to_bytes(8, "big"))
                    digest.update(part)
            digests.append(digest.digest())
        report(len(digests))
    return digests


def content_hashes(records: Records, report: Callable[[int], None] = _quiet) -> list[bytes]:
    """The first 16 bytes of `content_digests`."""
    return [digest[:HASH_BYTES] for digest in content_digests(records, report)]


def _content(role: str, value: Any) -> Iterator[bytes]:
    if role == "image":
        yield from _pixels(value)
    elif role == "label":
        yield str(int(value)).encode()
    else:
        yield unicodedata.normalize("NFC", value).encode("utf-8", "surrogatepass")


def _pixels(value: bytes) -> tuple[bytes, bytes]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(value)) as opened:
            # The numbers in a palette image mean nothing without the palette.
            image = opened.convert("RGBA" if "transparency" in opened.info else "RGB") if opened.mode == "P" else opened
            return f"{image.mode} {image.width} {image.height}".encode(), image.tobytes()
    except (UnidentifiedImageError, OSError, TypeError, ValueError, SyntaxError) as error:
        raise BadDataset("an image cannot be decoded: give PNG or JPEG bytes") from error


def find_duplicates(
    records: Records, fingerprints: NDArray[np.uint64] | None = None, report: Callable[[int], None] = _quiet
) -> pa.Table:
    """Table (left, right, similarity float32, kind "exact" or "near") of different record ids, left < right.

    Of a group with the same content each row names its first id and another one; near-duplicates are named by the
    first ids of their groups. `near_duplicates_of` puts both together. Texts only: similarity is the Jaccard
    similarity, at least 0.8. Time grows with N log N. `report` is told how many records are done, twice up to N for
    texts. `fingerprints` [N], equal for records of the same content at least, save looking at the others.
    """
    ids = np.asarray(records.ids).tolist()
    groups: dict[bytes, list[int]] = {}
    rows_to_see = _alike(fingerprints) if fingerprints is not None else None
    seen = records if rows_to_see is None else records.subset(rows_to_see)
    for at, digest in enumerate(content_hashes(seen, report)):
        groups.setdefault(digest, []).append(at if rows_to_see is None else rows_to_see[at])
    rows: list[tuple[str, str, float, str]] = []
    firsts = [min(members, key=lambda row: ids[row]) for members in groups.values()]
    for first, members in zip(firsts, groups.values(), strict=True):
        rows += [(ids[first], ids[row], 1.0, "exact") for row in members if row != first]
    if "image" not in records.roles:
        for left, right, similarity in similar_pairs(_texts(records, firsts), report):
            names = sorted((ids[firsts[left]], ids[firsts[right]]))
            rows.append((names[0], names[1], similarity, "near"))
    return _table(rows)


def _alike(fingerprints: NDArray[np.uint64]) -> list[int]:
    """The rows whose fingerprint another row has too."""
    _, inverse, counts = np.unique(fingerprints, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse] > 1).tolist()


def _texts(records: Records, rows: list[int]) -> Iterator[str]:
    """The text of each record, prompt and completion as one."""
    roles = [role for role in ("text", "prompt", "completion") if role in records.roles]
    for part in chunks(len(rows), _CHUNK):
        columns = records.take([rows[at] for at in part])
        yield from (" ".join(values) for values in zip(*(columns[role] for role in roles), strict=True))


def _table(rows: Iterable[tuple[str, str, float, str]]) -> pa.Table:
    columns = list(zip(*sorted(rows), strict=True)) or [(), (), (), ()]
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)], _SCHEMA)


class _Relations:
    """A table by record: the first id of the group that a record is in, the others of a group, near first ids."""

    def __init__(self, table: pa.Table) -> None:
        self.first: dict[str, str] = {}
        self.others: dict[str, list[str]] = {}
        self.near: list[tuple[str, str, float]] = []
        columns = (table[name].to_pylist() for name in _SCHEMA.names)
        for left, right, similarity, kind in zip(*columns, strict=True):
            if kind == "exact":
                self.first[right] = left
                self.others.setdefault(left, []).append(right)
            else:
                self.near.append((left, right, similarity))

    def group(self, first: str) -> list[str]:
        """Everybody with the content of a first id."""
        return [first, *self.others.get(first, [])]


def near_duplicates_of(table: pa.Table, ids: Iterable[str]) -> set[str]:
    """All other records with the same or nearly the same content as one of these."""
    wanted, relations = set(ids), _Relations(table)
    firsts = {relations.first.get(name, name) for name in wanted}
    reached = set(firsts)
    for left, right, _ in relations.near:
        if left in firsts:
            reached.add(right)
        if right in firsts:
            reached.add(left)
    return {name for first in reached for name in relations.group(first)} - wanted


def without_records(table: pa.Table, ids: Collection[str]) -> pa.Table:
    """The table of the records that are left when these are gone: what the others are to each other stays."""
    relations = _Relations(table)
    gone = set(ids)
    named = {name for left, right, _ in relations.near for name in (left, right)} | set(relations.others)
    heirs = {first: min((name for name in relations.group(first) if name not in gone), default=None) for first in named}
    rows: list[tuple[str, str, float, str]] = []
    for first, heir in heirs.items():
        left_over = [name for name in relations.group(first) if name not in gone and name != heir]
        rows += [(heir, name, 1.0, "exact") for name in left_over if heir is not None]
    for left, right, similarity in relations.near:
        pair = [name for name in (heirs[left], heirs[right]) if name is not None]
        if len(pair) == 2:
            rows.append((min(pair), max(pair), similarity, "near"))
    return _table(rows)


def write_duplicates(table: pa.Table, folder: Path) -> None:
    """duplicates.parquet in a folder, mode 0600."""
    write_table(table, folder / DUPLICATES)


def read_duplicates(folder: Path) -> pa.Table | None:
    """The table in a folder, None where there is none. Raises BadModel for a damaged file."""
    return read_table(folder / DUPLICATES, _SCHEMA.names)
