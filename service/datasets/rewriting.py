"""A copy of a dataset without some of its records: same format, columns, schema and order, streamed part by part.

A part that loses nothing is copied byte for byte, and of JSONL and CSV the lines of the records that stay. Parquet is
written anew: a page, and an Arrow dictionary even where no row uses its value, would still hold what was deleted.
"""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.datasets import places
from service.datasets.sources import BATCH_ROWS, Source, open_parquet
from service.datasets.survey import Survey, Watch, file_of
from service.errors import BadDataset, DiskFull

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_FLUSH_BYTES = 64 << 20
_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# RFC 4180 as Arrow reads it: quotes count where a field begins with one; any of \n, \r\n and \r ends a record.
_FIELD = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^,\r\n]*+|[^",\r\n][^,\r\n]*+|)'
_RECORD = re.compile(rb"%b(?:,%b)*+(?:\r\n?|\n)" % (_FIELD, _FIELD))


def rewrite(survey: Survey, draft: Path, watch: Watch = lambda _: None) -> int:
    """Write what stays into the empty file or folder `draft`; answers the number of files. Raises BadDataset.

    A folder gets the parts under their names, but for those that nothing is left of, and the image files that the
    records which stay name. What the source's folder holds besides is not copied.
    """
    source, files = survey.source, 0
    for file, keep in survey.keep.items():
        if not keep.any():
            continue
        target = draft / source.name(file) if draft.is_dir() else draft
        target.parent.mkdir(parents=True, exist_ok=True)
        with _naming(source.name(file), draft):
            if keep.all() and not _has_dictionaries(source, file):
                shutil.copyfile(file, target)
            else:
                _WRITERS[source.kind](source, file, target, keep)
            places.like(target, file)
        watch(len(keep))
        files += 1
    if draft.is_dir():
        _copy_images(survey, draft)
        _finish_folder(source, draft)
    return files


@contextmanager
def _naming(where: str, draft: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) in _FULL:
            raise DiskFull(f"no space left in {draft.parent} for the copy; nothing was changed") from None
        # Only the class of the error: Arrow quotes values.
        raise BadDataset(f"{where}: cannot be copied ({type(error).__name__})") from None


def _finish_folder(source: Source, draft: Path) -> None:
    for folder in sorted((path for path in draft.rglob("*") if path.is_dir()), reverse=True):
        places.like(folder, source.folder / folder.relative_to(draft))
    if source.root.is_dir():
        places.like(draft, source.root)
    else:
        places.flush(draft)


def _copy_images(survey: Survey, draft: Path) -> None:
    for name in sorted(survey.images):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadDataset("images are named by absolute paths or by way of other folders; they cannot be moved")
        original, target = file_of(survey.source.folder, name), draft / name
        with _naming("an image file", draft):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, target)
            places.like(target, original)


def _write_lines(source: Source, file: Path, target: Path, keep: "NDArray[np.bool_]") -> None:
    with file.open("rb") as lines, target.open("wb") as out:
        out.writelines(_kept(source.name(file), lines, keep, None))


def _write_csv(source: Source, file: Path, target: Path, keep: "NDArray[np.bool_]") -> None:
    records = _csv_records(file)
    with target.open("wb") as out:
        out.write(next(records, b""))
        out.writelines(_kept(source.name(file), records, keep, b"\r\n"))


def _kept(where: str, records: Iterator[bytes], keep: "NDArray[np.bool_]", blank: bytes | None) -> Iterator[bytes]:
    """The records to keep; blank lines, which are no records, stay."""
    at = 0
    for record in records:
        if not record.strip(blank):
            yield record
            continue
        if at < len(keep) and keep[at]:
            yield record
        at += 1
    if at != len(keep):
        raise BadDataset(f"{where}: has {at} records where {len(keep)} were read; it may have changed meanwhile")


def _csv_records(file: Path) -> Iterator[bytes]:
    """The records of a CSV file as they stand there, each with the end of its line."""
    with file.open("rb") as stream:
        held, end = b"", False
        while not end:
            block = stream.read(_BLOCK)
            held, end, at = held + block, not block, 0
            while match := _RECORD.match(held, at):
                if match.end() == len(held) and held.endswith(b"\r") and not end:
                    break  # its \n may come with the next block
                yield match[0]
                at = match.end()
            held = held[at:]
    if held:
        yield held


def _has_dictionaries(source: Source, file: Path) -> bool:
    if source.kind != "parquet":
        return False
    with open_parquet(file) as parquet:
        return any(plain_type(field.type) != field.type for field in parquet.schema_arrow)


def _write_parquet(_source: Source, file: Path, target: Path, keep: "NDArray[np.bool_]") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_parquet(file) as parquet:
        schema, place = parquet.schema_arrow, 0
        with pq.ParquetWriter(target, schema, **_options(parquet.metadata)) as writer:
            for group in range(parquet.num_row_groups):
                held: list[pa.RecordBatch] = []
                size = 0
                for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False):
                    held.append(batch.filter(pa.array(keep[place : place + batch.num_rows])))
                    place, size = place + batch.num_rows, size + held[-1].nbytes
                    if size > _FLUSH_BYTES:
                        _flush(writer, held, schema)
                        size = 0
                _flush(writer, held, schema)
    if place != len(keep):
        raise BadDataset(f"{file.name}: has {place} records where {len(keep)} were read; it has changed meanwhile")


def _flush(writer: Any, held: "list[pa.RecordBatch]", schema: "pa.Schema") -> None:
    """Write a row group. Values of dictionaries that no row of it uses are left behind."""
    import pyarrow as pa

    table = pa.Table.from_batches(held, schema=schema)
    held.clear()
    if not table.num_rows:
        return
    plain = pa.schema([field.with_type(plain_type(field.type)) for field in schema])
    if plain.types != schema.types:
        table = table.cast(plain).combine_chunks().cast(schema)
    writer.write_table(table, row_group_size=table.num_rows)


def _options(metadata: Any) -> dict[str, Any]:
    """How the file was written, as far as that can be said to a writer: codecs, and timestamps of 96 bits."""
    if not metadata.num_row_groups:
        return {}
    columns = [metadata.row_group(0).column(at) for at in range(metadata.num_columns)]
    codecs = {column.path_in_schema: column.compression for column in columns}
    codecs = {name: "NONE" if codec == "UNCOMPRESSED" else codec for name, codec in codecs.items()}
    old = any(column.physical_type == "INT96" for column in columns)
    return {"compression": codecs, "use_deprecated_int96_timestamps": old, "write_page_checksum": True}


def plain_type(kind: Any) -> Any:
    """The type of the values themselves, where they stand in dictionaries."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([member.with_type(plain_type(member.type)) for member in kind])
    for is_list, list_of in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_list(kind):
            return list_of(kind.value_field.with_type(plain_type(kind.value_type)))
    if pa.types.is_map(kind):
        item = kind.item_field.with_type(plain_type(kind.item_type))
        return pa.map_(plain_type(kind.key_type), item, keys_sorted=kind.keys_sorted)
    return kind


_WRITERS = {"parquet": _write_parquet, "jsonl": _write_lines, "csv": _write_csv}
