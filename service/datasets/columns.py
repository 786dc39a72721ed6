"""Roles of columns: which column of a file holds what the engine asks for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.errors import BadDataset, BadParameters

TASKS = ("image-classification", "text-classification", "causal-lm")

_ROLES: dict[str, tuple[tuple[str, ...], ...]] = {
    # The first set whose columns a file has is taken.
    "image-classification": (("image", "label"),),
    "text-classification": (("text", "label"),),
    "causal-lm": (("text",), ("prompt", "completion")),
}
_ALWAYS = ("record_id", "subject_id")


@dataclass(frozen=True)
class Columns:
    """Column names by role: `record_id`, `subject_id`, and those of the task in `values`."""

    record_id: str
    subject_id: str
    values: Mapping[str, str]

    @classmethod
    def for_task(
        cls,
        task: str,
        overrides: Mapping[str, str] | None = None,
        available: Collection[str] | None = None,
        where: str = "the data",
    ) -> "Columns":
        """Default names, renamed by `overrides`; `available`, a file's columns, settles text or prompt and completion.

        Raises BadParameters for an unknown task or role, BadDataset when `available` lacks a column.
        """
        if task not in _ROLES:
            raise BadParameters(f"unknown task {task!r}; tasks are {', '.join(TASKS)}")
        names = dict(overrides or {})
        allowed = {*_ALWAYS, *(role for roles in _ROLES[task] for role in roles)}
        unknown = sorted(set(names) - allowed)
        if unknown:
            raise BadParameters(
                f"unknown column role {unknown[0]!r} for {task}; roles are {', '.join(sorted(allowed))}"
            )
        roles = _choose(_ROLES[task], names, available)
        columns = cls(
            names.get("record_id", "record_id"),
            names.get("subject_id", "subject_id"),
            {role: names.get(role, role) for role in roles},
        )
        if available is not None:
            columns.require(available, where)
        return columns

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that records answer to, in a fixed order."""
        return tuple(self.values)

    def names(self) -> dict[str, str]:
        """Role -> column, all of them; the form in which a dataset row keeps it."""
        return {"record_id": self.record_id, "subject_id": self.subject_id, **self.values}

    def require(self, available: Collection[str], where: str) -> None:
        """Raises BadDataset, naming the first column that is not there."""
        for role, name in self.names().items():
            if name not in available:
                found = ", ".join(sorted(available)[:20]) or "none"
                raise BadDataset(f"{where}: no column {name!r} for {role}; it has {found}")


def _choose(
    choices: tuple[tuple[str, ...], ...], names: Mapping[str, str], available: Collection[str] | None
) -> tuple[str, ...]:
    for roles in choices:
        if any(role in names for role in roles):
            return roles
    if available is not None:
        for roles in choices:
            if all(role in available for role in roles):
                return roles
    return choices[0]


def parse_pairs(text: str, what: str) -> dict[str, str]:
    """`role=name,role=name` as a command line gives it. Raises BadParameters."""
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not (role and equals and name):
            raise BadParameters(f"{what}: {part!r} is not of the form name=COLUMN")
        if role in pairs:
            raise BadParameters(f"{what}: {role} is given twice")
        pairs[role] = name
    return pairs
