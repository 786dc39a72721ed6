"""Records of a dataset by position, for training and scoring; no torch.

Small datasets stay in memory. One larger than `MEMORY_LIMIT` is spilled once into an Arrow file that is memory-mapped
and unlinked at once, so that the page cache and not the process holds it and a crash leaves nothing behind.
"""

import errno
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.datasets.columns import Columns
from service.datasets.sources import available_columns, dataset_digest, open_source, read
from service.errors import BadDataset, DiskFull
from service.settings import get_settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["MEMORY_LIMIT", "Columns", "RecordTable", "dataset_digest", "open_records", "read_record_ids"]

MEMORY_LIMIT = 512 << 20


class _Chunks:
    """The value columns of all records as Arrow arrays, addressed by row."""

    def __init__(self, batches: list["pa.RecordBatch"], roles: tuple[str, ...], folder: Path) -> None:
        import numpy as np

        self.roles, self._folder = roles, folder
        self._columns = {role: [batch.column(position) for batch in batches] for position, role in enumerate(roles)}
        self._ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)

    def values(self, role: str, rows: "NDArray[np.int64]") -> list[Any]:
        """The values of one role at these rows."""
        import numpy as np

        chunks = self._columns[role]
        places = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate([np.zeros(1, dtype=np.int64), self._ends])[places]
        found = [
            chunks[chunk][offset].as_py()
            for chunk, offset in zip(places.tolist(), (rows - starts).tolist(), strict=True)
        ]
        if role == "image":
            return [image_bytes(value, self._folder) for value in found]
        return [int(value) for value in found] if role == "label" else found


class RecordTable:
    """Records in a fixed order; implements `workers.modeling.records.Records`.

    `ids` and `subjects` are NumPy arrays of strings of length `len(self)`.
    """

    def __init__(
        self, task: str, ids: "NDArray[Any]", subjects: "NDArray[Any]", rows: "NDArray[np.int64]", chunks: _Chunks
    ) -> None:
        self.task, self.ids, self.subjects = task, ids, subjects
        self._rows, self._chunks = rows, chunks
        self._positions: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def roles(self) -> tuple[str, ...]:
        """What `take` answers."""
        return self._chunks.roles

    def take(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """Role -> values in the order asked for; image -> encoded bytes, label -> int, the others -> str."""
        import numpy as np

        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        return {role: self._chunks.values(role, rows) for role in self.roles}

    def column(self, role: str) -> list[Any]:
        """The values of one role alone, of all records in their order."""
        return self._chunks.values(role, self._rows)

    def subset(self, indices: Sequence[int]) -> "RecordTable":
        """The records at these positions, in this order; shares the values with this table."""
        import numpy as np

        chosen = np.asarray(indices, dtype=np.int64)
        return RecordTable(self.task, self.ids[chosen], self.subjects[chosen], self._rows[chosen], self._chunks)

    def without(self, ids: Iterable[str]) -> "RecordTable":
        """The records whose id is not among these."""
        import numpy as np

        gone = np.array(list(ids), dtype=str)
        return self.subset(np.flatnonzero(~np.isin(self.ids, gone)).tolist())

    def rows_of(self, ids: Iterable[str]) -> "NDArray[np.int64]":
        """Positions of these record ids. Raises BadDataset when one is not there."""
        import numpy as np

        if self._positions is None:
            self._positions = {str(name): place for place, name in enumerate(self.ids)}
        wanted = list(ids)
        missing = [number for number, name in enumerate(wanted, 1) if name not in self._positions]
        if missing:
            which = f"the first is number {missing[0]} of the list"
            raise BadDataset(f"{len(missing)} of {len(wanted)} record ids are not in the data; {which}")
        return np.array([self._positions[name] for name in wanted], dtype=np.int64)


def open_records(path: Path, task: str, columns: dict[str, str] | None = None) -> RecordTable:
    """Open a dataset for random access. Raises BadDataset, one line naming the file or column."""
    import numpy as np

    source = open_source(path)
    chosen = Columns.for_task(task, columns, available_columns(source), source.root.name)
    names = list(chosen.names().values())
    text = {name for role, name in chosen.names().items() if role not in ("image", "label")}
    ids: list[str] = []
    subjects: list[str] = []
    keeper = _Keeper()
    for file, batch in read(source, list(dict.fromkeys(names)), text):
        where = source.name(file)
        ids += filled(batch.column(chosen.record_id), where, chosen.record_id)
        subjects += filled(batch.column(chosen.subject_id), where, chosen.subject_id)
        keeper.add([value_column(batch, role, name, where) for role, name in chosen.values.items()], chosen.roles)
    if not ids:
        raise BadDataset(f"{path}: holds no records")
    chunks = _Chunks(keeper.batches(), chosen.roles, source.folder)
    return RecordTable(task, np.array(ids), np.array(subjects), np.arange(len(ids), dtype=np.int64), chunks)


def read_record_ids(path: Path, column: str = "record_id") -> Iterator[list[str]]:
    """The record ids of a dataset, or of the Parquet table in a training record, in batches."""
    for _, batch in read(open_source(path), [column], {column}):
        yield batch.column(0).to_pylist()


class _Keeper:
    """Batches in memory until they pass the limit, then in an unlinked, memory-mapped Arrow file."""

    def __init__(self) -> None:
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0
        self._path: Path | None = None
        self._writer: Any = None

    def add(self, columns: list["pa.Array"], roles: Sequence[str]) -> None:
        import pyarrow as pa

        batch = pa.RecordBatch.from_arrays(columns, names=list(roles))
        if self._writer is not None:
            self._write(batch)
            return
        self._held.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > MEMORY_LIMIT:
            self._spill(batch.schema)

    def _spill(self, schema: "pa.Schema") -> None:
        import pyarrow as pa

        folder = get_settings().home / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".arrow")
        os.close(handle)
        self._path = Path(name)
        self._writer = pa.ipc.new_file(name, schema)
        for batch in self._held:
            self._write(batch)
        self._held.clear()

    def _write(self, batch: "pa.RecordBatch") -> None:
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            self._remove()
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"no space left to spill the dataset into {get_settings().home / 'tmp'}") from error
            raise

    def batches(self) -> list["pa.RecordBatch"]:
        if self._writer is None:
            return self._held
        import pyarrow as pa

        self._writer.close()
        reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        found = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._remove()
        return found

    def _remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)  # the mapping keeps its content


def filled(column: "pa.Array", where: str, name: str) -> list[str]:
    """The strings of a column. Raises BadDataset when one is null or empty."""
    values: list[str] = column.to_pylist()
    if column.null_count or "" in values:
        raise BadDataset(f"{where}: column {name!r} holds null; every record needs one")
    return values


def value_column(batch: "pa.RecordBatch", role: str, name: str, where: str) -> "pa.Array":
    """The values of one role, labels as int64. Raises BadDataset for null."""
    column = batch.column(name)
    if role == "label":
        return label_column(column, where, name)
    if column.null_count:
        raise BadDataset(f"{where}: column {name!r} holds null; every record needs one")
    return column


def label_column(column: "pa.Array", where: str, name: str) -> "pa.Array":
    """Labels as int64. Raises BadDataset for null, NaN and anything that is not a whole number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        raise BadDataset(f"{where}: column {name!r} holds NaN; every record needs a label")
    try:
        labels = pc.cast(column, pa.int64())
    except pa.ArrowException:
        raise BadDataset(f"{where}: column {name!r} does not hold whole numbers") from None
    if labels.null_count:
        raise BadDataset(f"{where}: column {name!r} holds null; every record needs a label")
    return labels


def image_bytes(value: Any, folder: Path) -> bytes:
    """Encoded bytes of an image column's value: bytes, a {bytes, path} struct, or a path below the data's folder."""
    path = value
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = value.get("path")
    if isinstance(path, bytes):
        return path
    if not isinstance(path, str):
        raise BadDataset("an image is null; every record needs one")
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise BadDataset("an image path leaves the folder of its dataset; keep images below it")
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadDataset(f"an image file cannot be read ({type(error).__name__})") from None


def known_ids(path: Path, column: str, wanted: Collection[str]) -> set[str]:
    """Which of these record ids a dataset holds; streams."""
    sought, found = set(wanted), set[str]()
    for ids in read_record_ids(path, column):
        found.update(sought.intersection(ids))
    return found
