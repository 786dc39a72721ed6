"""What of a dataset is to go: which rows of which file, and which image files only they name."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.datasets.sources import Source, open_parquet, read
from service.errors import BadDataset

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Watch = Callable[[int], None]
"""Told how many further records have been looked at."""


@dataclass(frozen=True)
class Survey:
    """For each file of `source` which rows stay, in order [rows], and the image files that rows name by path.

    `images` are the names as the data has them of rows that stay; `orphans` are files that only rows to go name.
    """

    source: Source
    keep: dict[Path, "NDArray[np.bool_]"]
    images: set[str] = field(default_factory=set)
    orphans: set[Path] = field(default_factory=set)

    @property
    def kept(self) -> int:
        """Records that stay."""
        return sum(int(rows.sum()) for rows in self.keep.values())

    @property
    def removed(self) -> int:
        """Records to go."""
        return sum(len(rows) for rows in self.keep.values()) - self.kept

    @property
    def rewritten(self) -> list[Path]:
        """The files that hold records to go."""
        return [file for file, rows in self.keep.items() if not rows.all()]


def survey(source: Source, columns: dict[str, str], gone: Collection[str], watch: Watch = lambda _: None) -> Survey:
    """Read the record ids once, and names of images where they are files of their own. Raises BadDataset."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(gone), pa.string())
    found = Survey(source, {})
    left: set[str] = set()
    for file in source.files:
        rows = []
        for ids, names in _read(source, file, columns):
            stays = pc.invert(pc.is_in(ids, value_set=wanted)).to_numpy(zero_copy_only=False)
            rows.append(stays)
            for name, stay in zip(names, stays.tolist(), strict=bool(names)):
                if name is not None:
                    (found.images if stay else left).add(name)
            watch(len(stays))
        found.keep[file] = np.concatenate(rows) if rows else np.zeros(0, dtype=bool)
    staying = {(source.folder / name).resolve() for name in found.images}
    found.orphans.update({file_of(source.folder, name) for name in left} - staying)
    return found


def _read(source: Source, file: Path, columns: dict[str, str]) -> Iterator[tuple["pa.Array", list[str | None]]]:
    """(record ids, names of image files) in batches; no names where the file holds the images themselves."""
    record, image = columns["record_id"], columns.get("image")
    named = image if image is not None and _may_name_files(source, file, image) else None
    names = [record] if named is None else [record, named]
    for _, batch in read(Source(source.root, (file,), source.kind), names, {record}):
        yield batch.column(0), [] if named is None else _names(batch.column(1))


def _may_name_files(source: Source, file: Path, image: str) -> bool:
    """Whether images may be paths. Those inside of the table are not read for it where its statistics tell."""
    import pyarrow as pa

    if source.kind != "parquet":
        return True
    with open_parquet(file) as parquet:
        kind, metadata = parquet.schema_arrow.field(image).type, parquet.metadata
        if not pa.types.is_struct(kind):
            return not _is_binary(kind)
        leaves = {metadata.schema.column(at).path: at for at in range(len(metadata.schema))}
        place = leaves.get(f"{image}.bytes")
        if place is None:
            return True
        groups = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
        return not all(group is not None and group.has_null_count and group.null_count == 0 for group in groups)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _names(column: "pa.Array") -> list[str | None]:
    """The path of each image that lies in a file of its own, as `records.image_bytes` finds it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_struct(column.type):
        members = {member.name for member in column.type}
        if "path" not in members:
            return []
        paths = pc.struct_field(column, "path")
        if "bytes" in members:
            paths = pc.if_else(pc.is_null(pc.struct_field(column, "bytes")), paths, pa.scalar(None, paths.type))
        column = paths
    return [value if isinstance(value, str) else None for value in column.to_pylist()]


def file_of(folder: Path, name: str) -> Path:
    """The file that data below `folder` names. Raises BadDataset where it lies outside."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise BadDataset("an image path leaves the folder of its dataset; keep images below it")
    return file
