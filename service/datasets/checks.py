"""What a dataset must satisfy before it is registered, found in one streamed pass."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.datasets.columns import Columns
from service.datasets.records import filled, image_bytes, value_column
from service.datasets.sources import Source, available_columns, open_source, read
from service.errors import BadDataset
from service.subjects.identifiers import TYPES, is_type_name

if TYPE_CHECKING:
    import pyarrow as pa

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class DatasetFacts:
    """What the pass has counted; `columns` is the full role -> column mapping that was settled on."""

    columns: dict[str, str]
    files: int
    records: int
    subjects: int
    largest_label: int | None

    @property
    def num_labels(self) -> int | None:
        """Largest label + 1, or None for a language model."""
        return None if self.largest_label is None else self.largest_label + 1


def check_records(
    path: Path,
    task: str,
    columns: dict[str, str] | None = None,
    identifiers: dict[str, str] | None = None,
    num_labels: int | None = None,
) -> DatasetFacts:
    """Read everything once. Raises BadDataset, one line that names the column or file, for:

    a missing column, a file or page that cannot be read, no records, a record id that is null or occurs twice, a null
    subject, a value that is null, a label that is no whole number, negative or not below `num_labels`, and a first
    image of a file that is neither a whole PNG nor a JPEG.
    """
    source = open_source(path)
    chosen = Columns.for_task(task, columns, available_columns(source), source.root.name)
    further = _identifier_columns(identifiers or {})
    wanted = list(dict.fromkeys([*chosen.names().values(), *further]))
    text = {name for role, name in chosen.names().items() if role not in ("image", "label")} | set(further)
    pass_ = _Pass(source, chosen)
    for file, batch in read(source, wanted, text):
        pass_.look_at(file, batch, num_labels)
    return pass_.facts(path)


def _identifier_columns(identifiers: dict[str, str]) -> list[str]:
    for kind in identifiers:
        if kind == "subject_id":
            raise BadDataset(
                "identifier type subject_id always means the subject column; use --columns subject_id=NAME"
            )
        if kind not in TYPES and not is_type_name(kind):
            raise BadDataset(f"identifier type {kind!r} must be lower-case letters, digits and underscores")
    return list(identifiers.values())


class _Pass:
    def __init__(self, source: Source, columns: Columns) -> None:
        self._source, self._columns = source, columns
        self._ids: list[pa.Array] = []
        self._subjects: set[str] = set()
        self._files: set[Path] = set()
        self._largest: int | None = None

    def look_at(self, file: Path, batch: "pa.RecordBatch", num_labels: int | None) -> None:
        import pyarrow as pa

        where = self._source.name(file)
        try:
            batch.validate(full=True)
        except pa.ArrowException:
            raise BadDataset(f"{where}: holds text that is not UTF-8 or a corrupt page") from None
        filled(batch.column(self._columns.record_id), where, self._columns.record_id)
        self._ids.append(batch.column(self._columns.record_id))
        self._subjects.update(filled(batch.column(self._columns.subject_id), where, self._columns.subject_id))
        for role, name in self._columns.values.items():
            values = value_column(batch, role, name, where)
            if role == "label":
                self._check_labels(values, where, name, num_labels)
            elif role == "image" and file not in self._files and batch.num_rows:
                _check_image(image_bytes(values[0].as_py(), self._source.folder), where, name)
        self._files.add(file)

    def _check_labels(self, labels: "pa.Array", where: str, name: str, num_labels: int | None) -> None:
        import pyarrow.compute as pc

        if not len(labels):
            return
        smallest, largest = (int(value) for value in pc.min_max(labels).as_py().values())
        if smallest < 0:
            raise BadDataset(f"{where}: column {name!r} holds {smallest}; labels start at 0")
        if num_labels is not None and largest >= num_labels:
            raise BadDataset(f"{where}: column {name!r} holds label {largest}, but the model has {num_labels} labels")
        self._largest = max(largest, self._largest if self._largest is not None else -1)

    def facts(self, path: Path) -> DatasetFacts:
        records = sum(len(ids) for ids in self._ids)
        if not records:
            raise BadDataset(f"{path}: holds no records")
        self._refuse_duplicates()
        return DatasetFacts(self._columns.names(), len(self._source.files), records, len(self._subjects), self._largest)

    def _refuse_duplicates(self) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = pa.chunked_array(self._ids, type=pa.string())
        again = len(ids) - pc.count_distinct(ids).as_py()
        if again:
            row = next(_repeated_rows(self._ids))
            name, where = self._columns.record_id, self._source.root.name
            raise BadDataset(f"{where}: column {name!r} has {again} duplicate record ids, the first in row {row}")


def _repeated_rows(chunks: "list[pa.Array]") -> Iterator[int]:
    seen: set[str] = set()
    row = 0
    for chunk in chunks:
        for value in chunk.to_pylist():
            row += 1
            if value in seen:
                yield row
            seen.add(value)


def _check_image(content: bytes, where: str, name: str) -> None:
    if content.startswith(_JPEG) and b"\xff\xd9" in content:
        return
    if content.startswith(_PNG) and _is_whole_png(content):
        return
    raise BadDataset(f"{where}: column {name!r}: its first image is not a whole PNG or JPEG")


def _is_whole_png(content: bytes) -> bool:
    # Chunks of length, type, data, CRC (PNG specification, section 5): intact means every CRC fits up to IEND.
    place = len(_PNG)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        end = place + 12 + length
        if end > len(content):
            return False
        if zlib.crc32(content[place + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return False
        if content[place + 4 : place + 8] == b"IEND":
            return True
        place = end
    return False
