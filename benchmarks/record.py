"""What a benchmark leaves: a table on the screen and a JSON file that says where and when it was measured."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"

_PACKAGES = ("torch", "transformers", "fastapi", "uvicorn", "SQLAlchemy", "psycopg", "celery")


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 0) -> str:
        """`median (low-high)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


@dataclass(frozen=True)
class Target:
    """A figure that was promised. `at_most` says on which side of `limit` the value has to lie."""

    name: str
    value: float
    limit: float
    at_most: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the value keeps the promise."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def line(self) -> str:
        """One line for the screen."""
        side = "at most" if self.at_most else "at least"
        verdict = "[green]met[/green]" if self.met else "[red]missed[/red]"
        return f"{self.name}: {self.value:,.3g} {self.unit}, promised {side} {self.limit:,.4g} {self.unit} · {verdict}"


@dataclass
class Result:
    """One benchmark's answer: a table of texts for people, `measurements` for machines."""

    name: str
    question: str
    rounds: int
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def show(self, console: Console) -> None:
        """Print the table, the targets and the notes."""
        table = Table(title=self.question, title_justify="left", header_style="bold")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for target in self.targets:
            console.print("  " + target.line(), highlight=False)
        for note in self.notes:
            console.print(f"  {note}", highlight=False, style="dim")

    def write(self, folder: Path = RESULTS) -> Path:
        """Write `<folder>/<name>.json`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "name": self.name,
            "question": self.question,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "rounds": self.rounds,
            "settings": self.settings,
            "measurements": self.measurements,
            "targets": [asdict(target) | {"met": target.met} for target in self.targets],
            "notes": self.notes,
        }
        path = folder / f"{self.name}.json"
        draft = path.with_suffix(".partial")
        draft.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=asdict) + "\n", "utf-8")
        draft.replace(path)
        return path


def machine() -> dict[str, Any]:
    """CPU model, usable cores, memory, system, Python and the packages that matter; load shows who else was running."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
