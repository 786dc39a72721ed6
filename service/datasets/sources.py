"""Files of a dataset as a stream of Arrow batches: Parquet, JSONL and CSV, one file or a folder of parts.

Only the wanted columns are read, a batch at a time, so that a file larger than memory works. Whatever is wrong with a
file is BadDataset, one line that names it.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import BadDataset

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2048

KINDS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
"""Suffixes of data files, and the format each stands for."""


@dataclass(frozen=True)
class Source:
    """The files of one dataset, sorted by relative path, all of one kind: parquet, jsonl or csv."""

    root: Path
    files: tuple[Path, ...]
    kind: str

    def name(self, file: Path) -> str:
        """How messages name a file: below the folder, or by its own name."""
        return file.relative_to(self.root).as_posix() if file != self.root else file.name

    @property
    def folder(self) -> Path:
        """Where relative paths inside the data start."""
        return self.root if self.root.is_dir() else self.root.parent


def open_source(path: Path) -> Source:
    """Find the files. Raises BadDataset when there are none, or of several kinds."""
    if not path.exists():
        raise BadDataset(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            raise BadDataset(f"{path}: give a Parquet, JSONL or CSV file (.parquet, .jsonl, .csv) or a folder of parts")
        return Source(path, (path,), KINDS[path.suffix.lower()])
    found = sorted(
        (file for file in path.rglob("*") if file.suffix.lower() in KINDS and _is_visible(file, path)),
        key=lambda file: file.relative_to(path).as_posix(),
    )
    kinds = {KINDS[file.suffix.lower()] for file in found}
    if not found:
        raise BadDataset(f"{path}: the folder holds no .parquet, .jsonl or .csv file")
    if len(kinds) > 1:
        raise BadDataset(f"{path}: the folder mixes {' and '.join(sorted(kinds))} files; keep one kind")
    return Source(path, tuple(found), kinds.pop())


def _is_visible(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def dataset_digest(path: Path) -> str:
    """SHA-256 over the sorted (name, SHA-256) of the parts; of a single file, over its content alone."""
    source = open_source(path)
    named = path.is_dir()
    parts = sorted((source.name(file) if named else "", _digest_file(file)) for file in source.files)
    return hashlib.sha256(json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _digest_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def available_columns(source: Source) -> list[str]:
    """The columns of the first file. Raises BadDataset."""
    file = source.files[0]
    with _naming(source, file):
        if source.kind == "parquet":
            return [str(name) for name in open_parquet(file).schema_arrow.names]
        if source.kind == "csv":
            return _csv_header(file)
        first = next(_json_lines(source, file), None)
        return list(first[1]) if first else []


def read(source: Source, columns: Sequence[str], text: Collection[str]) -> Iterator[tuple[Path, "pa.RecordBatch"]]:
    """(file, batch) pairs with these columns in this order; those in `text` come as strings, whatever they were.

    Raises BadDataset for a missing column or a file that cannot be read.
    """
    readers = {"parquet": _read_parquet, "csv": _read_csv, "jsonl": _read_jsonl}
    for file in source.files:
        with _naming(source, file):
            for batch in readers[source.kind](source, file, columns):
                yield file, _as_text(batch, text)


@contextmanager
def _naming(source: Source, file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # Only the class of the error: Arrow quotes values.
        kind = "a page is corrupt or it is not " + source.kind
        raise BadDataset(f"{source.name(file)}: cannot be read ({kind}: {type(error).__name__})") from None


def _require(source: Source, file: Path, columns: Sequence[str], found: Collection[str]) -> None:
    for name in columns:
        if name not in found:
            raise BadDataset(
                f"{source.name(file)}: no column {name!r}; it has {', '.join(sorted(found)[:20]) or 'none'}"
            )


def open_parquet(file: Path) -> Any:
    """A Parquet file whose pages are checked against their checksums. Raises errors of Arrow."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file, page_checksum_verification=True)


def _read_parquet(source: Source, file: Path, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    with open_parquet(file) as parquet:
        _require(source, file, columns, parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(columns), use_threads=False):
            yield batch.select(list(columns))


def _csv_header(file: Path) -> list[str]:
    import csv

    with file.open(newline="", encoding="utf-8-sig") as stream:
        return next(csv.reader(stream), [])


def _read_csv(source: Source, file: Path, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa
    from pyarrow import csv

    _require(source, file, columns, _csv_header(file))
    # Everything as text: guessed types would turn the id "007" into 7.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), include_columns=list(columns), strings_can_be_null=False
    )
    options = csv.ReadOptions(block_size=1 << 22, use_threads=False)
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(file, read_options=options, parse_options=parse, convert_options=convert) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)


def _read_jsonl(source: Source, file: Path, columns: Sequence[str]) -> Iterator["pa.RecordBatch"]:
    rows: list[dict[str, Any]] = []
    start = 1
    for number, row in _json_lines(source, file):
        for name in columns:
            if name not in row:
                raise BadDataset(f"{source.name(file)}: no column {name!r} in line {number}")
        rows.append(row)
        if len(rows) == BATCH_ROWS:
            yield _json_batch(source, file, rows, columns, start)
            rows, start = [], number + 1
    if rows:
        yield _json_batch(source, file, rows, columns, start)


def _json_lines(source: Source, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise BadDataset(f"{source.name(file)}: line {number} is not JSON") from None
            if not isinstance(row, dict):
                raise BadDataset(f"{source.name(file)}: line {number} is not a JSON object")
            yield number, row


def _json_batch(
    source: Source, file: Path, rows: list[dict[str, Any]], columns: Sequence[str], start: int
) -> "pa.RecordBatch":
    import pyarrow as pa

    arrays = []
    for name in columns:
        try:
            arrays.append(pa.array([row[name] for row in rows]))
        except (pa.ArrowException, OverflowError):
            raise BadDataset(f"{source.name(file)}: column {name!r} mixes types at or after line {start}") from None
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _as_text(batch: "pa.RecordBatch", text: Collection[str]) -> "pa.RecordBatch":
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, name in enumerate(batch.schema.names):
        if name not in text or pa.types.is_string(batch.schema.field(position).type):
            continue
        column = batch.column(position)
        if pa.types.is_floating(column.type):
            # An integer column with gaps arrives as floats: 7.0 is the id "7", and NaN is a gap.
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            whole = pc.cast(column, pa.int64(), safe=False)
            column = whole if pc.all(pc.equal(pc.cast(whole, column.type), column)).as_py() is not False else column
        batch = batch.set_column(position, name, pc.cast(column, pa.string()))
    return batch
