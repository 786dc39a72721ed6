"""All jobs of a self-test judged in two processes, a retrain at a time; what was judged stays on disk."""

import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gate_judging import POLICY, Court, Verdicts
from benchmarks.gate_world import GateWorld
from benchmarks.reference_world import PROCESSES
from workers.modeling.directories import sha256_file, sha256_json

ROOT = Path(__file__).parent.parent
_READ = ("service/verification/*.py", "workers/metrics/*.py", "workers/planning/*.py", "workers/scoring/*.py")


def judge_all(world: GateWorld) -> tuple[list[Verdicts], int]:
    """(the verdicts of every retrain's jobs, how many retrains were judged now).

    A file of each in the folder of the world is taken over where it was judged by the same code and policy.
    """
    names, version = list(world.forget_sets()), judging_version()
    files = {name: world.folder / f"judged-{version}-{name}.json" for name in names}
    waiting = [name for name in names if not files[name].is_file()]
    spawn = multiprocessing.get_context("spawn")
    began = time.monotonic()
    with ProcessPoolExecutor(PROCESSES, spawn, initializer=_open, initargs=(world,)) as workers:
        running = [workers.submit(_judge, name, files[name]) for name in waiting]
        for done, future in enumerate(as_completed(running), 1):
            future.result()
            left = (time.monotonic() - began) / done * (len(running) - done)
            print(f"  judged {done} of {len(running)} retrains, {left:.0f} s left", file=sys.stderr, flush=True)
    return [one for name in names for one in read_verdicts(files[name])], len(waiting)


def judging_version() -> str:
    """Eight digits that change with the policy and with the code that judges."""
    found = [path for pattern in (*_READ, "benchmarks/gate_*.py") for path in ROOT.glob(pattern)]
    return sha256_json([POLICY.digest(), {str(path.relative_to(ROOT)): sha256_file(path) for path in found}])[:8]


_courts: list[Court] = []


def _open(world: GateWorld) -> None:
    import torch

    torch.set_num_threads(1)
    _courts.append(Court.of(world))


def _judge(retrain: str, path: Path) -> None:
    """Judge into a file that appears whole or not at all."""
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps([asdict(one) for one in _courts[0].verdicts(retrain)]))
    draft.replace(path)


def read_verdicts(path: Path) -> list[Verdicts]:
    """The verdicts that a file holds."""
    found: list[dict[str, Any]] = json.loads(path.read_text())
    lists = ("attempts", "shared", "estimates")
    return [Verdicts(**(one | {name: tuple(one[name]) for name in lists})) for one in found]
