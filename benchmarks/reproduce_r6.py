"""R6, proxies of memorization (2410.16516): six of them against the memorization that 64 half-data models show.

Four learning events of the served model's own training; holdout retraining (a copy trained on held-out records, the
symmetric divergence of its answers from the old ones); loss curvature (how far the loss gradient turns under a sign
step of the input). Rank correlation over all 1,100 training records, three served models.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.processes import environment
from benchmarks.record import Result, Spread, Target
from benchmarks.reference_figures import rank_correlation
from benchmarks.reproduce_r5 import MODELS, SHORT_MODELS, memorization
from benchmarks.reproduce_world import ONE_THREAD, OUT, SEEDS, Lab, digits_lab, outcome
from workers.lineage.events import EVENTS
from workers.lineage.store import ModelHistory
from workers.modeling.batching import Encoded
from workers.modeling.devices import generator
from workers.modeling.loading import LoadedModel, load_model

HOLDOUT, CURVATURE = "holdout retraining", "loss curvature"
PUBLISHED = {
    "confidence": "-0.80 to -0.91",
    "binary_accuracy": "-0.71 to -0.89",
    HOLDOUT: "0.62 to 0.67",
    CURVATURE: "0.69 to 0.70",
}
SIGNS = dict.fromkeys(EVENTS, -1) | {HOLDOUT: 1, CURVATURE: 1}
STEP, RATE, EPOCHS, PATIENCE, BATCH = 0.01, 0.1, 30, 4, 64
COLUMNS = ("proxy", "rank correlation with memorization", "published", "sign as published")


def run(quick: bool = False) -> Result:
    """Train what is missing and measure; `quick` takes 16 half-data models and one seed."""
    seeds = SEEDS[:1] if quick else SEEDS
    with environment(LETHE_HOME=str(OUT), **ONE_THREAD):
        lab = digits_lab(quick)
        pool = lab.pool(SHORT_MODELS if quick else MODELS)
        result = Result("reproduce-r6", "R6: proxies of memorization on noisy digits", len(seeds), COLUMNS)
        truth = memorization(lab, pool)
        found = [lab.cell(f"r6-{pool.facts.count}-{seed}", partial(_proxies, lab, seed)) for seed in seeds]
        for name in SIGNS:
            _row(result, name, [rank_correlation(np.array(one[name]), truth) for one in found])
    _conclude(result)
    result.settings["half_data_models"] = pool.facts.count
    return result


def _proxies(lab: Lab, seed: int) -> dict[str, Any]:
    """Each proxy of every training record, in their order."""
    history, served = ModelHistory(lab.served(seed)).records, lab.served(seed)
    places = {str(name): at for at, name in enumerate(history.ids)}
    events = history.events[[places[str(name)] for name in lab.train.ids]]
    found = {name: events[:, at].astype(float).tolist() for at, name in enumerate(EVENTS)}
    return found | {
        HOLDOUT: _holdout_retraining(lab, served, seed).tolist(),
        CURVATURE: _curvature(lab, served, seed).tolist(),
    }


def _holdout_retraining(lab: Lab, served: Path, seed: int) -> NDArray[np.float64]:
    """Half the symmetric divergence of old and new answers [N], nats, after SGD at 0.1 on held-out records alone."""
    before = _log_shares(lab, load_model(served, lab.task, lab.context.device))
    loaded = load_model(served, lab.task, lab.context.device)
    part, order = Encoded(loaded.task, lab.held_out), generator(seed, 61)
    optimizer = torch.optim.SGD(loaded.model.parameters(), lr=RATE)
    loaded.model.train()
    best, worse = float("inf"), 0
    for _ in range(EPOCHS):
        total = 0.0
        for rows in part.shuffled(BATCH, order):
            loss = loaded.task.losses(loaded.model, part.batch(rows, lab.context.device)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        best, worse = (total, 0) if total < best else (best, worse + 1)
        if worse >= PATIENCE:
            break
    after = _log_shares(lab, loaded)
    return np.asarray(((before.exp() - after.exp()) * (before - after)).sum(dim=1).numpy() / 2, dtype=np.float64)


@torch.no_grad()
def _log_shares(lab: Lab, loaded: LoadedModel) -> torch.Tensor:
    """Log probabilities [N, classes]."""
    loaded.model.eval()
    part = Encoded(loaded.task, lab.train)
    batches = [loaded.task.outputs(loaded.model, part.batch(rows, lab.context.device)) for rows in part.in_order(BATCH)]
    return torch.cat([one.logits.double().log_softmax(dim=1) for one in batches])  # type: ignore[union-attr]


def _curvature(lab: Lab, served: Path, seed: int) -> NDArray[np.float64]:
    """Norm of the change of the loss gradient by the input [N], under a step of 0.01 in random signs."""
    loaded = load_model(served, lab.task, lab.context.device)
    loaded.model.eval()
    part, draw, found = Encoded(loaded.task, lab.train), generator(seed, 62), []
    for rows in part.in_order(BATCH):
        batch = part.batch(rows, lab.context.device)
        pixels, labels = batch["pixel_values"], batch["labels"]
        signs = torch.randint(0, 2, pixels.shape, generator=draw).to(pixels.dtype) * 2 - 1
        slopes = [_slope(loaded, each, labels) for each in (pixels, pixels + STEP * signs)]
        found.append((slopes[1] - slopes[0]).flatten(1).norm(dim=1))
    return np.asarray(torch.cat(found).numpy(), dtype=np.float64)


def _slope(loaded: LoadedModel, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    given = pixels.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(loaded.model(pixel_values=given).logits, labels, reduction="sum")
    return torch.autograd.grad(loss, given)[0]


def _row(result: Result, name: str, found: list[float]) -> None:
    agrees = all(np.sign(value) == SIGNS[name] for value in found)
    cells = [Spread.of(found).text(2), PUBLISHED.get(name, "-"), "yes" if agrees else "no"]
    result.rows.append([name.replace("_", " "), *cells])
    result.measurements.append({"proxy": name, "correlation": found, "sign_as_published": agrees})


def _conclude(result: Result) -> None:
    """Targets by the plan, and one sentence."""
    median = {one["proxy"]: float(np.median(one["correlation"])) for one in result.measurements}
    signs = sum(one["sign_as_published"] for one in result.measurements)
    result.targets += [
        Target("mean confidence of the training", median["confidence"], -0.7),
        Target(HOLDOUT, median[HOLDOUT], 0.5, at_most=False),
        Target("signs as published, of six", signs, len(SIGNS), at_most=False),
    ]
    held = all(target.met for target in result.targets)
    opposite = median["confidence"] > 0 or median[HOLDOUT] < 0
    result.settings["outcome"] = outcome(held, opposite)
    result.notes.append(
        f"{outcome(held, opposite)}: confidence {median['confidence']:.2f}, {HOLDOUT} {median[HOLDOUT]:.2f}, "
        f"{CURVATURE} {median[CURVATURE]:.2f}; {signs} of {len(SIGNS)} signs as published"
    )
