"""Findings of the papers behind the methods, at a small scale: all reproductions in turn, and what became of each.

Each is a benchmark of its own (`reproduce-r4` and so on) with its own file of results; what has been trained and
measured is kept, so that running all of them after each by itself only puts the answers together. R7 is `sisa`.
"""

import importlib

from benchmarks.record import RESULTS, Result
from benchmarks.reproduce_world import say

NUMBERS = ("r1", "r2", "r3", "r4", "r5", "r6", "r8")
COLUMNS = ("reproduction", "targets met", "outcome")


def run(quick: bool = False) -> Result:
    """All of them, in the order of their numbers."""
    result = Result("reproduce", "Published findings at a small scale", 1, COLUMNS)
    for number in NUMBERS:
        say(f"reproduce-{number}")
        found: Result = importlib.import_module(f"benchmarks.reproduce_{number}").run(quick=quick)
        if not quick:
            found.write(RESULTS)
        met = sum(target.met for target in found.targets)
        told = found.settings["outcome"]
        words = told if isinstance(told, str) else "; ".join(f"{claim}: {word}" for claim, word in told.items())
        result.rows.append([found.question, f"{met} of {len(found.targets)}", words])
        result.measurements.append({"name": found.name, "outcome": told, "met": met, "targets": len(found.targets)})
        result.targets += found.targets
        result.notes.append(f"{number.upper()}: {found.notes[0]}")
    return result
