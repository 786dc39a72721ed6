"""Small Parquet tables beside a model: written for their owner's eyes only, whole or not at all."""

import os
import secrets
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import BadModel


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table with mode 0600; after a crash the path holds the old table or the new one.

    The same table gives the same bytes.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        pq.write_table(table, stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a power cut could bring the old table back
    finally:
        os.close(folder)


def read_table(path: Path, columns: Collection[str]) -> pa.Table | None:
    """The table at a path that holds at least these columns; None where there is no file.

    Raises BadModel for a file that is damaged or of another shape.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise BadModel(f"{path.name} beside the model is damaged ({type(error).__name__})") from error
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise BadModel(f"{path.name} beside the model has no column {missing[0]}")
    return table
