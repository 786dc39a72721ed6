"""From a model directory and a data set to the problem that a method gets and the sets that an evaluation scores."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.catalogue.recipes import Recipe
from service.errors import BadParameters
from workers.lineage.canaries import CanarySet
from workers.lineage.canaries import companions as chosen_companions
from workers.lineage.recorder import recorder_for
from workers.lineage.reserve import reserve_digest, reserve_of
from workers.lineage.store import open_history, sealed_canaries
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records, held_out_key, joined, split_held_out


@dataclass(frozen=True)
class Line:
    """A model line with its data, as everything after training sees it.

    `people` are the records that a training may use: the data without the reserve. `held_out` is the set that was
    given, or else the reserve. `canaries` were planted among the records when the model was trained.
    """

    base_dir: Path
    task: str
    people: Records
    held_out: Records | None
    holdout_digest: str | None
    canaries: CanarySet | None
    reserved: frozenset[str]

    @property
    def trainable_ids(self) -> set[str]:
        """Every record id that may stand in a training record of this line."""
        ids = set(np.asarray(self.people.ids).tolist())
        return ids if self.canaries is None else ids | set(self.canaries.inside.ids.tolist())

    @property
    def given_digest(self) -> str | None:
        """The digest of a held-out set that was given; None where the reserve stands in: deletions make it smaller."""
        return None if self.holdout_digest == reserve_digest(self.reserved) else self.holdout_digest

    def trained(self, ids: Collection[str]) -> list[str]:
        """Those of these record ids that a training may have seen: the others lie in the reserve."""
        return [name for name in ids if name not in self.reserved]


def open_line(base_dir: Path, task: str, data: Records, held_out: Records | None, holdout_digest: str | None) -> Line:
    """Read what the training of the model left beside it. Raises BadModel for files that cannot be read."""
    inside = np.isin(np.asarray(data.ids), np.array(sorted(reserve_of(base_dir)), dtype=str))
    # Records that have left the data since have left the reserve too.
    reserved = frozenset(np.asarray(data.ids)[inside].tolist())
    people = data
    if reserved:
        people = data.subset(np.flatnonzero(~inside).tolist())
        if held_out is None:
            held_out, holdout_digest = data.subset(np.flatnonzero(inside).tolist()), reserve_digest(reserved)
    return Line(base_dir, task, people, held_out, holdout_digest, sealed_canaries(base_dir), reserved)


def build_problem(
    line: Line,
    forget_ids: Collection[str],
    recipe: Recipe | None,
    data_digest: str,
    columns: dict[str, str],
    companions: int | None = None,
) -> Problem:
    """Split the records into forget and retain and take the selection quarter of the held-out set.

    For methods that train again (`companions` None) every planted canary counts as a retained record. An approximate
    edit forgets so many of them along with the people, where so many are left, and never meets those that earlier edits
    have spent. Raises BadDataset for an unknown id, BadParameters when the forget set is empty or all of the data.
    """
    people, rows = line.people, _rows(line, forget_ids)
    forget = people.subset(rows.tolist())
    retain = people.subset(np.setdiff1d(np.arange(len(people)), rows).tolist())
    chosen: list[str] = []
    kept: list[str] = []
    if line.canaries is not None:
        planted = line.canaries.inside if companions is None else line.canaries.unspent
        chosen = chosen_companions(line.canaries, companions or 0)
        spent = np.isin(planted.ids, np.array(chosen, dtype=str))
        staying = planted.subset(np.flatnonzero(~spent).tolist())
        retain, kept = joined(retain, staying), np.asarray(staying.ids).tolist()
        if chosen:
            forget = joined(forget, planted.subset(np.flatnonzero(spent).tolist()))
    selection = None
    if line.held_out is not None and line.holdout_digest is not None:
        selection, _ = split_held_out(line.held_out, held_out_key(line.holdout_digest))
    return Problem(
        base_dir=line.base_dir,
        task_name=line.task,
        forget=forget,
        retain=retain,
        selection=selection,
        recipe=recipe,
        data_digest=data_digest,
        holdout_digest=line.holdout_digest,
        columns=columns,
        lineage=open_history(line.base_dir),
        reserved=line.reserved - set(forget_ids),
        companions=frozenset(chosen),
        planted=frozenset(kept),
    )


def _rows(line: Line, forget_ids: Collection[str]) -> NDArray[np.int64]:
    """Rows of the records to forget among the people's."""
    wanted = line.trained(forget_ids)
    if not wanted:
        lying = " that a training has seen; those named lie in the reserve" if forget_ids else ""
        raise BadParameters(f"the forget set is empty; name at least one record id{lying}")
    rows = np.unique(line.people.rows_of(wanted))
    if len(rows) == len(line.people):
        raise BadParameters("the forget set is the whole data set; retire the model instead")
    return rows


def as_edit(problem: Problem, line: Line, companions: int) -> Problem:
    """The same problem for an approximate edit, which forgets so many canaries along with the people."""
    edit = build_problem(
        line, problem.people.ids.tolist(), problem.recipe, problem.data_digest, problem.columns, companions
    )
    return replace(edit, references=problem.references)


def recording(problem: Problem, context: Context) -> Context:
    """The context in which whatever is trained leaves its own lineage behind."""
    return replace(context, recorder=recorder_for(problem.base_dir, problem.reserved))
