"""What does a reference pool know? Memorization, membership in an untouched model, and a true retrain at one half.

Digits with 15 % wrong labels, which a model can only know by heart; a small ResNet on 1,100 records. (i) Memorization
from pools of 16, 32 and 64 members against 200 models of other halves. (ii) Members against never-seen records of the
untouched model: one global threshold, and the offline likelihood-ratio attack with the record's own, the pooled and
the shrunk variance. (iii) Forgotten against held-out records, of the untouched model and of true retrains: a population
attack, references with one affine correction, and `reference_auc`.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.processes import environment
from benchmarks.record import Result, Spread, Target
from benchmarks.reference_figures import (
    Reading,
    attacks,
    held_out_scores,
    members_table,
    rank_correlation,
    reading,
    score_gap,
    side_pairs,
    train_scores,
)
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST, RECIPE, Job, World, make_world, train_all
from service.verification.statistics import Array
from workers.lineage.events import EVENTS
from workers.lineage.store import ModelHistory
from workers.references.layout import HELD_OUT, TRAIN, Pool
from workers.references.members import Materials
from workers.references.pool import plan_pool

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
COLUMNS = ("case", "", "", "", "")
DO_NOTHING, RETRAIN = "do nothing", "retrain"


@dataclass(frozen=True)
class Sizes:
    """How many models: of the pool, of the estimate that it is compared with, of retrains for each forget set."""

    pool: int
    truth: int
    retrains: int

    @property
    def pools(self) -> list[int]:
        """Sizes of pools that are looked at."""
        return [count for count in (16, 32, 64) if count <= self.pool]


FULL, QUICK = Sizes(64, 200, 3), Sizes(16, 24, 1)


@dataclass(frozen=True)
class Trained:
    """Everything that the figures are computed from."""

    world: World
    sizes: Sizes
    pool: Pool
    truth: Pool


def run(quick: bool = False) -> Result:
    """Train and measure; `quick` takes few models."""
    sizes = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name, environment(LETHE_HOME=name, **ONE_THREAD):
        trained, seconds = _train(Path(name), sizes)
        result = Result("references", "What references know, on digits with 15 % wrong labels", 1, COLUMNS)
        _memorization(result, trained)
        _detection(result, trained)
        _retrains(result, trained)
    models = sizes.pool + sizes.truth + 4 * sizes.retrains + 1
    result.settings = {"pool": sizes.pool, "truth": sizes.truth, "retrains": sizes.retrains, "seconds": round(seconds)}
    result.settings |= {"recipe": RECIPE.model_dump(mode="json", exclude={"sources"})}
    result.notes.append(f"{models} models in {seconds:.0f} s, two at a time, one thread each")
    return result


def _train(folder: Path, sizes: Sizes) -> tuple[Trained, float]:
    world = make_world(folder)
    seconds = train_all(world, [Job(0)])
    train, held_out = (world.records(part) for part in ("train", "held_out"))
    materials = Materials(world.served, train, held_out, RECIPE, DIGEST, HELD_OUT_DIGEST, {})
    pool = plan_pool(folder / "pool", materials, sizes.pool, seed=1)
    truth = plan_pool(folder / "truth", materials, sizes.truth, seed=2)
    jobs = [Job(number, each.directory) for each in (pool, truth) for number in range(each.facts.count)]
    jobs += [Job(seed, forget=name) for name in world.forget_sets() for seed in range(1, sizes.retrains + 1)]
    return Trained(world, sizes, pool, truth), seconds + train_all(world, jobs)


def _memorization(result: Result, trained: Trained) -> None:
    """Rank correlation of estimates with the accuracy-based estimate from many models."""
    ids = trained.world.records(TRAIN).ids
    pairs = range(trained.truth.facts.count // 2)
    truth = members_table(trained.truth, pairs).memorization(ids)
    count = trained.truth.facts.count
    title = f"[bold]memorization: rank correlation with {count} models[/bold]"
    result.rows.append([title, "accuracy IN - OUT", "score IN - OUT", "pools", ""])
    for name, by_accuracy, by_score in _estimates(trained, ids):
        accuracy, gap = ([rank_correlation(each, truth) for each in values] for values in (by_accuracy, by_score))
        spreads = Spread.of(accuracy), Spread.of(gap)
        result.rows.append([f"  {name}", *(spread.text(2) for spread in spreads), str(len(accuracy)), ""])
        result.measurements.append({"part": "memorization", "case": name, "accuracy": accuracy, "score": gap})
    _proxies(result, trained.world, dict(zip(ids.tolist(), truth.tolist(), strict=True)))
    halves = (members_table(trained.truth, pairs[at::2]).memorization(ids) for at in (0, 1))
    reliability = rank_correlation(*halves)
    result.notes.append(
        f"two halves of the {count} models agree at {reliability:.2f}; mean memorization {truth.mean():.2f}, "
        f"above 0.5 for {np.mean(truth > 0.5):.0%} of the records"
    )
    result.settings["truth_reliability"] = reliability


def _proxies(result: Result, world: World, truth: dict[str, float]) -> None:
    """Rank correlation of the four learning events that the served model's own training recorded (2410.16516)."""
    records = ModelHistory(world.served).records
    memorized = np.array([truth[str(name)] for name in records.ids])
    for at, name in enumerate(EVENTS):
        found = rank_correlation(records.events[:, at].astype(float), memorized)
        result.rows.append([f"  learning event: {name.replace('_', ' ')}", f"{found:.2f}", "", "", ""])
        result.measurements.append({"part": "memorization", "case": name, "accuracy": [found], "score": []})
        if name == "confidence":
            result.targets.append(Target("mean confidence of the training, correlation", found, -0.7))


def _estimates(trained: Trained, ids: Array) -> Iterator[tuple[str, list[Array], list[Array]]]:
    """(name, memorization of every record by accuracy, the same by score), one of each for every disjoint pool."""
    for count in trained.sizes.pools:
        starts = range(0, trained.sizes.pool // 2, count // 2)
        tables = [members_table(trained.pool, range(start, start + count // 2)) for start in starts]
        yield f"K = {count}", [table.memorization(ids) for table in tables], [score_gap(t, ids) for t in tables]
    for count in trained.sizes.pools:
        table = members_table(trained.pool, side_pairs(trained.pool, count, "method"))
        yield f"K = {count}, the methods' side alone", [table.memorization(ids)], [score_gap(table, ids)]


def _detection(result: Result, trained: Trained) -> None:
    """Members against never-seen records of the untouched model, by the gate's side."""
    world = trained.world
    members, others = train_scores(world, world.served), held_out_scores(world, world.served)
    result.rows.append(["[bold]untouched model: members v. never seen[/bold]", "AUC", "TPR at 1 % FPR", "OUT refs", ""])
    for count in trained.sizes.pools:
        side = members_table(trained.pool, side_pairs(trained.pool, count, "gate"))
        found = attacks(members.judged(side, TRAIN), others.judged(side, HELD_OUT))
        for name, detected in found.items():
            low, high = detected.auc.interval(0.95)
            rate = f"{detected.point.rate:.3f} ({detected.point.ci95[0]:.3f}–{detected.point.ci95[1]:.3f})"
            cells = [f"{detected.auc.auc:.3f} ({low:.3f}–{high:.3f})", rate, str(count // 4), ""]
            result.rows.append([f"  K = {count}, {name}", *cells])
            result.measurements.append({"part": "detection", "count": count, "attack": name} | detected.told())
        gain = found["shrunk variance"].auc.auc - found["global threshold"].auc.auc
        result.targets.append(Target(f"K = {count}: AUC gained by references", gain, 0.0, at_most=False))


def _retrains(result: Result, trained: Trained) -> None:
    """Forgotten against held-out records, by the gate's side of the whole pool."""
    world, side = trained.world, members_table(trained.pool, trained.pool.facts.sides["gate"])
    header = ["[bold]forgotten v. held out (AUC)[/bold]", "population", "affine", "matched", "95 % covers 0.5"]
    result.rows.append(header)
    base = train_scores(world, world.served), held_out_scores(world, world.served)
    for name, ids in world.forget_sets().items():
        untouched = [reading(side, base[0].of(ids), base[1])]
        again = [
            reading(side, train_scores(world, directory).of(ids), held_out_scores(world, directory))
            for directory in (world.retrained(name, seed) for seed in range(1, trained.sizes.retrains + 1))
        ]
        for model, readings in ((DO_NOTHING, untouched), (RETRAIN, again)):
            _add_readings(result, name, model, len(ids), readings)


def _add_readings(result: Result, name: str, model: str, size: int, readings: Sequence[Reading]) -> None:
    columns = (
        Spread.of([each.population.auc for each in readings]),
        Spread.of([each.affine.auc for each in readings]),
        Spread.of([each.matched.auc.auc for each in readings]),
    )
    intervals = [each.matched.auc.interval(0.95) for each in readings]
    covers = sum(low <= 0.5 <= high for low, high in intervals)
    cells = [spread.text(2) for spread in columns]
    result.rows.append([f"  {name} ({size}), {model}", *cells, f"{covers} of {len(readings)}"])
    result.measurements += [{"part": "forget", "set": name, "model": model} | each.told() for each in readings]
    if model == RETRAIN:
        distance = abs(columns[2].median - 0.5)
        result.targets.append(Target(f"{name}: a retrain's distance from 0.5", distance, 0.1))
    else:
        result.targets.append(Target(f"{name}: do nothing", columns[2].median, 0.6, at_most=False))
