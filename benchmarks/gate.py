"""Does the gate, by measurement alone, pass what has forgotten nothing, and does it fail what never knew?

Each of twenty retrains leaves out ten disjoint forget sets, which serve as ten jobs; further retrains a class each. For
every job the whole gate judges four candidates: the untouched model with its scores nudged, the retrain, a model whose
scores have collapsed to one value, and one whose margin is constant; and noise whose true AUC lies exactly at the
margin, five times over. With a pool of references (the gate's side of 16) and without. Power is computed from sizes,
references and the untouched model, before a candidate is looked at: "power allows" where a model without any leak
passes the whole gate with probability 0.9 at least.

Here for images; `gate_text` and `gate_lm` do the same for texts. Trained models stay in benchmarks/out: a run that
was stopped goes on where it was.
"""

import resource
import time
from pathlib import Path

from benchmarks.gate_data import images
from benchmarks.gate_report import COLUMNS, tell
from benchmarks.gate_sessions import judge_all
from benchmarks.gate_world import MISLABELLED, ONE_CLASS, RANDOM, SMALL, SMALL_SIZE, GateWorld, Plan, open_gate_world
from benchmarks.processes import environment
from benchmarks.record import Result
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST, Job, train_all
from workers.references.members import Materials
from workers.references.pool import plan_pool, settle_pool

OUT = Path(__file__).parent / "out"
RETRAINS, POOL = 20, 16
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

PLAN = Plan(
    name="gate",
    told="images of digits, 15 % of them mislabelled",
    task="image-classification",
    make=images,
    train=5000,
    held_out=3900,
    recipe={
        "model": {
            "task": "image-classification",
            "config": {
                "model_type": "resnet", "num_channels": 1, "embedding_size": 32, "hidden_sizes": [64],
                "depths": [1], "layer_type": "basic",
            },
        },
        "training": {"epochs": 14, "batch_size": 64, "learning_rate": 5e-3},
    },
    sizes={RANDOM: (2, 150), SMALL: (1, SMALL_SIZE), MISLABELLED: (4, 74), ONE_CLASS: (2, 74)},
    whole_classes=10,
)  # fmt: skip


def run(quick: bool = False) -> Result:
    """The self-test for images."""
    return self_test(PLAN, quick)


def self_test(plan: Plan, quick: bool) -> Result:
    """Train what is missing and judge; `quick` takes a small world, one retrain and no class."""
    retrains = 1 if quick else RETRAINS
    plan = plan.small() if quick else plan
    folder = OUT / f"{plan.name}-{plan.digest(retrains)}"
    with environment(LETHE_HOME=str(folder), **ONE_THREAD):
        world = open_gate_world(plan, folder, retrains)
        trained, seconds = _trained(world)
        cpu, began = _children(), time.monotonic()
        found, judged = judge_all(world)
        judging, judging_cpu = time.monotonic() - began, _children() - cpu
    result = Result(plan.name, f"The gate's verdicts by measurement alone: {plan.told}", 1, COLUMNS)
    result.settings = {"retrains": retrains, "references": POOL, "jobs": len(world.sets()), "trained_now": trained}
    result.settings |= {"training_seconds": round(seconds), "judging_seconds": round(judging)}
    result.settings |= {
        "judging_cpu_seconds": round(judging_cpu),
        "training_cpu_seconds": round(cpu),
        "judged_now": judged,
    }
    result.settings |= {"train": plan.train, "held_out": plan.held_out, "sizes": dict(plan.sizes)}
    for with_references in (True, False):
        tell(result, found, with_references)
    result.notes.append(
        f"{trained} models trained in {seconds:.0f} s, jobs of {judged} retrains judged in {judging:.0f} s"
    )
    return result


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _trained(world: GateWorld) -> tuple[int, float]:
    """Train what is missing; answers how many models that was, and the seconds that they took."""
    waiting = [] if world.served.is_dir() else [Job(0)]
    seconds = train_all(world, waiting) if waiting else 0.0
    train, held_out = (world.records(part) for part in ("train", "held_out"))
    materials = Materials(world.served, train, held_out, world.recipe, DIGEST, HELD_OUT_DIGEST, {})
    pool = plan_pool(world.folder / "pool", materials, POOL, seed=1)
    count = len(waiting)
    if not pool.complete:
        seconds += train_all(world, [Job(number, pool.directory) for number in range(POOL)])
        settle_pool(pool.directory)
        count += POOL
    waiting = [Job(1, forget=name) for name in world.forget_sets() if not world.retrained(name, 1).is_dir()]
    seconds += train_all(world, waiting) if waiting else 0.0
    return count + len(waiting), seconds
