"""What the demo prints: plain lines everywhere, bars that move on a terminal, a line per change elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

_PLAIN_WIDTH = 110


class Screen:
    """One place that writes; control codes go only to a terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)

    def heading(self, text: str) -> None:
        """The start of a part of the story, with the seconds since the first line."""
        seconds = time.monotonic() - self._started
        self._console.print(f"\n[bold]{escape(text)}[/bold] [dim]({seconds:.0f} s)[/dim]", soft_wrap=True)

    def line(self, text: str = "", indent: int = 2) -> None:
        """A line of text; never wrapped, so that it can be cut and searched."""
        self._console.print(" " * indent + escape(text), soft_wrap=True)

    def said(self, question: str, answer: str, note: str = "") -> None:
        """A question to a model and what it answered."""
        self._console.print(
            f"    {escape(question)}  [cyan]{escape(answer)}[/cyan]  {escape(note)}".rstrip(), soft_wrap=True
        )

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; cells may hold several lines, and give way where the terminal is narrow."""
        drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for header in headers:
            drawn.add_column(header, overflow="fold")
        for row in rows:
            drawn.add_row(*(escape(cell) for cell in row))
        self._console.print(drawn)

    @contextmanager
    def bars(self, names: Sequence[str]) -> Iterator["Bars"]:
        """Bars for these names while the block runs."""
        columns = (
            TextColumn("  {task.fields[name]}"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
        )
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as progress:
            width = max(len(name) for name in names)
            tasks = {name: progress.add_task("", total=1.0, name=name.ljust(width), state="") for name in names}
            yield Bars(self, progress, tasks)


class Bars:
    """Progress of several things at once."""

    def __init__(self, screen: Screen, progress: Progress, tasks: dict[str, TaskID]) -> None:
        self._screen, self._progress, self._tasks = screen, progress, tasks
        self._said: dict[str, str] = {}

    def update(self, name: str, fraction: float, state: str) -> None:
        """Where one of them stands; elsewhere than on a terminal a line is printed when its state changes."""
        if not self._progress.disable:
            self._progress.update(self._tasks[name], completed=fraction, state=state)
        elif self._said.get(name) != state:
            self._screen.line(f"{name:<12} {fraction:>4.0%}  {state}")
        self._said[name] = state

    def finish(self, name: str) -> None:
        """Stop the clock of one of them."""
        self._progress.stop_task(self._tasks[name])
