"""What does each method of the catalogue come to, beside doing nothing and beside a retrain?

Worlds: digits with wrong labels and a ResNet; Fashion-MNIST where a folder of it is given; authors who do not exist and
a tiny GPT-2. Each seed has a served model of its own; the forget sets, five retrains of each and 16 references are the
same for all seeds, so that ranges are of models and attempts, not of sets. Every method that fits the task runs at its
defaults, and is refused in its own words where it does not fit. Cells stay in benchmarks/out, one file each: a run that
was stopped goes on where it was.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.bar_world import RECIPE as FASHION_RECIPE
from benchmarks.methods_data import Counts, write_authors, write_digits, write_fashion
from benchmarks.methods_world import (
    MISLABELLED,
    ONE_CLASS,
    POOL,
    RANDOM_1,
    RANDOM_10,
    TEN,
    MethodWorld,
    Plan,
    open_world,
    train_world,
)
from benchmarks.processes import environment
from benchmarks.record import Result

OUT = Path(__file__).parent / "out"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
DIGITS = Plan(
    name="digits",
    told="1,500 images of digits, 15 % wrong labels, ResNet",
    task="image-classification",
    write=write_digits,
    counts=Counts(1500, 1500, 600),
    recipe={
        "model": {
            "task": "image-classification",
            "config": {
                "model_type": "resnet", "num_channels": 1, "embedding_size": 24, "hidden_sizes": [24, 32],
                "depths": [1, 1], "layer_type": "basic",
            },
        },
        "training": {"epochs": 14, "batch_size": 32, "learning_rate": 3e-3},
    },
    sizes={RANDOM_1: 15, RANDOM_10: 150, TEN: 10, MISLABELLED: 50, ONE_CLASS: 0},
)  # fmt: skip
FASHION = Plan(
    name="fashion",
    told="4,000 images of Fashion-MNIST, 10 % wrong labels, ResNet",
    task="image-classification",
    write=write_fashion,
    counts=Counts(4000, 2000, 1000),
    recipe=FASHION_RECIPE.model_dump(mode="json", include={"model", "training"}),
    sizes={RANDOM_1: 40, RANDOM_10: 400, TEN: 10, MISLABELLED: 60, ONE_CLASS: 0},
)
AUTHORS = Plan(
    name="authors",
    told="600 questions on 120 made-up authors, tiny GPT-2",
    task="causal-lm",
    write=write_authors,
    counts=Counts(600, 600, 300),
    recipe={
        "model": {
            "task": "causal-lm",
            "config": {
                "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 48, "resid_pdrop": 0.0,
                "embd_pdrop": 0.0, "attn_pdrop": 0.0,
            },
        },
        "training": {"epochs": 12, "batch_size": 32, "learning_rate": 4e-3, "max_length": 48},
    },
    sizes={RANDOM_1: 5, RANDOM_10: 60, TEN: 10, MISLABELLED: 20},
    by_person=True,
)  # fmt: skip
WORLDS = {plan.name: plan for plan in (DIGITS, FASHION, AUTHORS)}


def run(
    quick: bool = False, data: Path | None = None, worlds: tuple[str, ...] = (), seeds: int | None = None
) -> Result:
    """Train what is missing and measure; `quick` takes small worlds, `worlds` some of them alone.

    `seeds`: how many of the plan's, None all of them. `data`: a folder with the four files of Fashion-MNIST, or with a
    folder `fashion-mnist` of them.
    """
    import torch

    from benchmarks.methods_cells import code_version, measured_cell
    from benchmarks.methods_report import COLUMNS, tell

    unknown = [name for name in worlds if name not in WORLDS]
    if unknown:
        raise SystemExit(f"methods: no world {unknown[0]!r}; there are {', '.join(WORLDS)}")
    torch.set_num_threads(1)
    chosen = worlds or tuple(name for name in WORLDS if name != FASHION.name or data is not None)
    result = Result("methods", "Every method beside doing nothing and retraining", 1, COLUMNS)
    cells: list[dict[str, Any]] = []
    for name in chosen:
        plan = WORLDS[name].small() if quick else WORLDS[name]
        plan = replace(plan, seeds=min(seeds or plan.seeds, plan.seeds))
        folder = OUT / f"methods-{plan.name}-{plan.digest()}"
        with environment(LETHE_HOME=str(folder), **ONE_THREAD):
            world = open_world(plan, folder, data)
            train_world(world, _tell)
            for kind, seed in [(kind, seed) for seed in range(plan.seeds) for kind in plan.sizes]:
                began = time.monotonic()
                cells.append(measured_cell(world, kind, seed))
                _tell(f"{name}: {kind}, seed {seed + 1} of {plan.seeds}, {time.monotonic() - began:.0f} s")
        result.settings[name] = _settings(world)
    result.settings |= {"references": POOL, "code": code_version(), "threads": 1}
    tell(result, cells)
    return result


def _settings(world: MethodWorld) -> dict[str, Any]:
    plan = world.plan
    told = {"told": plan.told, "counts": vars(plan.counts), "sizes": dict(plan.sizes), "recipe": dict(plan.recipe)}
    return told | {"seeds": plan.seeds, "draws": plan.draws, "retrains": plan.retrains}


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
