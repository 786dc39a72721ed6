"""`python -m benchmarks [NAME ...]`: run the shorter benchmarks, or these; tables on the screen, JSON in results."""

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.record import Result, machine

NAMES = ("startup", "intake", "cost", "speed", "lineage", "sisa", "references", "deletions", "crosscheck")
FINDINGS = tuple(f"reproduce-r{number}" for number in (1, 2, 3, 4, 5, 6, 8))
LONG = ("gate", "gate-text", "gate-lm", "verification", "bar", "authors", "methods", "reproduce", *FINDINGS)
"""These train for a quarter of an hour or more, and run only by name."""


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 0 when everything ran, 1 with --strict when a promised figure was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default {', '.join(NAMES)}; or {', '.join(LONG)}")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a promised figure is missed")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--interpreter", metavar="PYTHON", help="for crosscheck: a Python that has the other packages")
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="for bar and methods: Fashion-MNIST's four files; for authors: tofu and tokenizer",
    )
    parser.add_argument("--world", metavar="NAME", action="append", default=[], help="for methods: this world alone")
    parser.add_argument("--seeds", metavar="N", type=int, help="for methods: the first N seeds alone")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in NAMES + LONG]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES + LONG)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    facts = machine()
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Python {facts['python']}, "
        f"load {facts['load_average'][0]}",
        highlight=False,
    )
    results: list[Result] = []
    for name in chosen.names or NAMES:
        started = time.monotonic()
        given: dict[str, dict[str, Any]] = {
            "crosscheck": {"interpreter": chosen.interpreter},
            "bar": {"data": chosen.data},
            "authors": {"data": chosen.data},
            "methods": {"data": chosen.data, "worlds": tuple(chosen.world), "seeds": chosen.seeds},
        }
        options = given.get(name, {})
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        result: Result = module.run(quick=chosen.quick, **options)
        console.print()
        result.show(console)
        if chosen.quick:
            continue  # figures of a quick run are not worth keeping
        path = result.write()
        console.print(f"  {time.monotonic() - started:.0f} s, written to {path}", style="dim", highlight=False)
        results.append(result)
    missed = [target for result in results for target in result.targets if not target.met]
    return 1 if missed and chosen.strict else 0


if __name__ == "__main__":
    sys.exit(main())
