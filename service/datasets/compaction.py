"""A dataset without the records that its model was made to forget: written, read back and checked, ready to register.

Nothing appears at its place before all of it is on disk, and nothing of it stays where the registration fails.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.datasets import places
from service.datasets import service as datasets
from service.datasets.models import Dataset
from service.datasets.records import known_ids, open_records
from service.datasets.rewriting import rewrite
from service.datasets.sources import KINDS, Source, dataset_digest, open_source
from service.datasets.survey import Survey, Watch, file_of, survey
from service.errors import BadDataset, BadParameters, Conflict

Stamp = tuple[tuple[Path, int, int], ...]


@dataclass(frozen=True)
class Part:
    """The records of a dataset, or its held-out ones, as they are: what stays, and the files as they were read."""

    survey: Survey
    stamp: Stamp

    @property
    def changed(self) -> bool:
        """Whether the files are others by now than those that were read."""
        return _stamp(self.survey.source) != self.stamp


@dataclass
class Ready:
    """A checked copy of the data, and of the held-out set where that held deleted records too.

    `put` gives it its place, within the transaction that registers `prepared`; what is not `kept` then is removed.
    """

    prepared: datasets.PreparedDataset
    data: Part
    holdout: Part | None
    moves: list[tuple[Path, Path]]
    placed: list[Path] = field(default_factory=list)
    kept: bool = False

    @property
    def parts(self) -> list[Part]:
        """What has been rewritten."""
        return [self.data] if self.holdout is None else [self.data, self.holdout]

    def put(self) -> None:
        """Raises BadDataset where the data has changed since it was read, BadParameters where a place is taken."""
        for part in self.parts:
            if part.changed:
                raise BadDataset(f"{part.survey.source.root}: changed while it was copied; nothing was changed")
        for draft, place in self.moves:
            places.put(draft, place)
            self.placed.append(place)

    def discard(self) -> None:
        """Remove the copies from their places, and the subject index."""
        for place in self.placed:
            places.remove(place)
        shutil.rmtree(self.prepared.index_path.parent, ignore_errors=True)


def check_places(dataset: Dataset, out: Path, holdout_out: Path | None, avoid: Sequence[Path] = ()) -> None:
    """Refuse, before anything is read, places that are taken, of another format, or inside of a registered dataset.

    `avoid` are the paths of further datasets. Raises BadParameters, and BadDataset where the data is not there.
    """
    wanted = [(out, Path(dataset.path))]
    if holdout_out is not None:
        if dataset.holdout_path is None:
            raise BadParameters("--holdout-out: the model has no held-out set")
        if holdout_out.absolute() == out.absolute():
            raise BadParameters(f"{out}: is named for both the data and the held-out set; give two places")
        wanted.append((holdout_out, Path(dataset.holdout_path)))
    for place, original in wanted:
        _as_folder(open_source(original), place)
        places.refuse_taken(place)
        for other in [*(path for _, path in wanted), *avoid]:
            if other.is_dir() and place.resolve().is_relative_to(other.resolve()):
                raise BadParameters(f"{place}: lies in the registered data {other}; give a place outside of it")


def _as_folder(source: Source, place: Path) -> bool:
    """Whether the copy is a folder. A single file may become one of a folder, with the images it names."""
    kind = KINDS.get(place.suffix.lower())
    if source.root.is_dir() or kind is None:
        if kind is not None:
            raise BadParameters(f"{place}: the data is a folder of parts; name a folder")
        return True
    if kind != source.kind:
        raise BadParameters(f"{place}: the data is {source.kind}; name a {source.root.suffix} file, or a folder")
    return False


@contextmanager
def compacting(
    dataset: Dataset, gone: Collection[str], out: Path, holdout_out: Path | None = None, watch: Watch = lambda _: None
) -> Iterator[Ready]:
    """Write and check the copies; at the end of the block whatever was not kept is removed.

    Raises BadDataset for data that cannot be read or is not what was registered, Conflict where it holds none of the
    records, BadParameters where the held-out set holds some and has no place to go, DiskFull.
    """
    refuse_changed(dataset)
    data = _part(Path(dataset.path), dataset.columns, gone, watch)
    if data.survey.kept + data.survey.removed != dataset.records:
        raise BadDataset(f"{dataset.path}: changed while it was read; nothing was changed")
    if not data.survey.removed:
        raise Conflict(f"{dataset.path}: nothing to compact, it holds none of the deleted records")
    if not data.survey.kept:
        raise Conflict(f"{dataset.path}: nothing would be left of it; retire the model instead")
    holdout = _holdout(dataset, data, gone, holdout_out, watch)
    with ExitStack() as stack:
        moves = [(_written(stack, data.survey, out, watch), out.absolute())]
        if holdout is not None and holdout_out is not None:
            moves.append((_written(stack, holdout.survey, holdout_out, watch), holdout_out.absolute()))
        ready = Ready(_prepared(dataset, moves), data, holdout, moves)
        try:
            _check(ready, gone)
            yield ready
        finally:
            if not ready.kept:
                ready.discard()


def refuse_changed(dataset: Dataset) -> None:
    """Raises BadDataset where the files are not those that were registered."""
    for path, digest in ((dataset.path, dataset.digest), (dataset.holdout_path, dataset.holdout_digest)):
        if path is not None and dataset_digest(Path(path)) != digest:
            raise BadDataset(f"{path}: changed after registration; register the model again")


def _part(path: Path, columns: dict[str, str], gone: Collection[str], watch: Watch) -> Part:
    source = open_source(path)
    stamp = _stamp(source)
    return Part(survey(source, columns, gone, watch), stamp)


def _stamp(source: Source) -> Stamp:
    try:
        return tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in source.files)
    except OSError:
        return ()


def _holdout(dataset: Dataset, data: Part, gone: Collection[str], place: Path | None, watch: Watch) -> Part | None:
    """The held-out set where it has to be rewritten. Images that it names are no orphans of the data."""
    if dataset.holdout_path is None:
        return None
    part = _part(Path(dataset.holdout_path), dataset.columns, gone, watch)
    for one, other in ((data.survey, part.survey), (part.survey, data.survey)):
        one.orphans.difference_update(file_of(other.source.folder, name) for name in other.images)
    removed = part.survey.removed
    if removed and place is None:
        raise BadParameters(f"the held-out set holds {removed} deleted records too; name --holdout-out for its copy")
    if place is not None and not removed:
        raise BadParameters("--holdout-out: the held-out set holds none of the deleted records and stays as it is")
    if removed and not part.survey.kept:
        raise Conflict("nothing would be left of the held-out set; register the model with another one")
    return part if removed else None


def _written(stack: ExitStack, found: Survey, place: Path, watch: Watch) -> Path:
    folder = _as_folder(found.source, place)
    if found.images and not folder and place.parent.resolve() != found.source.folder.resolve():
        where = found.source.folder
        raise BadParameters(
            f"{place}: the data names image files in {where}; name a file there, or a folder to copy to"
        )
    draft = stack.enter_context(places.drafted(place, folder))
    rewrite(found, draft, watch)
    return draft


def _prepared(dataset: Dataset, moves: list[tuple[Path, Path]]) -> datasets.PreparedDataset:
    """Read back, counted and indexed as any data that is registered, under the paths that it will have."""
    held_out = Path(dataset.holdout_path) if dataset.holdout_path is not None else None
    draft, path = moves[1] if len(moves) > 1 else (held_out, held_out)
    labels = dataset.details.get("num_labels")
    prepared = datasets.prepare(dataset.task, moves[0][0], draft, dataset.columns, dataset.identifiers, labels)
    return replace(prepared, path=moves[0][1], holdout_path=path)


def _check(ready: Ready, gone: Collection[str]) -> None:
    """The copy must be what was meant. Raises BadDataset; then it is not the data that is wrong."""
    task, columns = ready.prepared.task, ready.prepared.facts.columns
    for part, (draft, _) in zip(ready.parts, ready.moves, strict=True):
        table = open_records(draft, task, columns)
        if len(table) != part.survey.kept or known_ids(draft, columns["record_id"], gone):
            raise BadDataset(f"{draft}: the copy is not what was to be written; nothing was changed")
