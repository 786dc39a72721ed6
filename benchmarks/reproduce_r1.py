"""R1, first-epoch ascent (2406.09391): "gradients of the first epoch unlearn best; the embedding matters, not the end".

A GPT-2 of four layers on 240 sentences of one form and 20 secrets, ten epochs. One move along the summed gradients of
the secrets, without bounds, at EQUAL norm of the update for every group of layers, with gradients from the end of the
first and of the last epoch, and with the output head tied to the embedding and untied. What counts is how much the
secrets' loss rises for each nat that never-seen sentences lose.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.processes import environment
from benchmarks.record import Result, Spread, Target
from benchmarks.reproduce_texts import SECRETS, secrets_lab
from benchmarks.reproduce_world import DO_NOTHING, ONE_THREAD, OUT, RETRAIN, SEEDS, Lab, numbers, outcome
from workers.modeling.layers import flat, parameters_of
from workers.modeling.loading import load_model

Group = Literal["embedding", "all", "last_blocks"]
GROUPS: tuple[Group, ...] = ("embedding", "all", "last_blocks")
BLOCKS, NORMS = 2, (1.0, 4.0)
FIRST = 1
HEADS = {"tied": True, "untied": False}
LEAST = 0.01
COLUMNS = ("head, epoch of the gradients, layers", "norm", "forgotten +nats", "unseen +nats", "gain per loss")


def run(quick: bool = False) -> Result:
    """Train what is missing and measure; `quick` takes one seed, two epochs and one norm."""
    seeds, norms = (SEEDS[:1], NORMS[1:2]) if quick else (SEEDS, NORMS)
    with environment(LETHE_HOME=str(OUT), **ONE_THREAD):
        result = Result("reproduce-r1", "R1: first-epoch ascent at equal norm, by layers", len(seeds), COLUMNS)
        for head, tied in HEADS.items():
            _measure(result, secrets_lab(quick, tied), head, norms, seeds)
    _conclude(result)
    return result


def _measure(result: Result, lab: Lab, head: str, norms: Sequence[float], seeds: Sequence[int]) -> None:
    """All moves of one kind of model."""
    ids, epochs = lab.train.ids[:SECRETS].tolist(), lab.recipe.training.epochs
    read = partial(_read, lab, ids)
    base = [lab.cell(f"r1-nothing-{seed}", partial(read, lab.served(seed))) for seed in seeds]
    again = [lab.cell(f"r1-retrain-{seed}", partial(lab.read_retrained, "r1", ids, read, seed)) for seed in seeds]
    for model, found in ((DO_NOTHING, base), (RETRAIN, again)):
        _row(result, f"{head}: {model}", {"head": head, "model": model}, base, found)
    for epoch in (FIRST, epochs):
        for group in GROUPS:
            for norm in norms:
                moved = [
                    lab.cell(f"r1-{epoch}-{group}-{norm}-{seed}", partial(_moved, lab, ids, seed, epoch, group, norm))
                    for seed in seeds
                ]
                facts = {"head": head, "model": "ascent", "epoch": epoch, "layers": group, "norm": norm}
                _row(result, f"{head}, {epoch}, {group.replace('_', ' ')}", facts, base, moved)


def _moved(lab: Lab, ids: list[str], seed: int, epoch: int, group: Group, norm: float) -> dict[str, Any]:
    """The model after one move of this norm; the method takes lengths in norms of the group's own weights."""
    model = load_model(lab.served(seed), lab.task, torch.device("cpu")).model
    own = float(flat(parameters_of(model, group, BLOCKS)).detach().norm())
    params = {"layers": group, "blocks": BLOCKS, "mode": "fuzzy", "similarity": 1.0, "score": "none"}
    params |= {"bound": "none", "length": norm / own, "epoch": epoch}
    return lab.attempt("first_epoch_ascent", params, lab.problem(lab.served(seed), ids), seed, partial(_read, lab, ids))


def _read(lab: Lab, ids: list[str], directory: Path) -> dict[str, Any]:
    """Mean losses a token: the secrets, the other training records, and never-seen records."""
    whole, unseen = lab.scores(directory, lab.train), lab.scores(directory, lab.judging)
    inside = np.isin(np.array(whole["record_id"].to_pylist()), np.array(ids))
    sentence = np.array([text.startswith("on ") for text in lab.judging.column("text")])
    return {
        "forget": float(numbers(whole, "loss")[inside].mean()),
        "retain": float(numbers(whole, "loss")[~inside].mean()),
        "unseen": float(numbers(unseen, "loss")[sentence].mean()),
    }


def _row(
    result: Result, name: str, facts: dict[str, Any], base: list[dict[str, Any]], found: list[dict[str, Any]]
) -> None:
    gain, lost, kept = (
        [after[key] - before[key] for before, after in zip(base, found, strict=True)]
        for key in ("forget", "unseen", "retain")
    )
    # Below a hundredth of a nat of harm the ratio says nothing but that there was none to speak of.
    ratios = [up / max(down, LEAST) for up, down in zip(gain, lost, strict=True)]
    norm = f"{facts['norm']:g}" if "norm" in facts else ""
    result.rows.append([name, norm, *(Spread.of(values).text(2) for values in (gain, lost, ratios))])
    result.measurements.append(facts | {"gain": gain, "lost": lost, "retained": kept, "ratio": ratios})


def _conclude(result: Result) -> None:
    """Targets by the plan, and one sentence."""
    moves = [one for one in result.measurements if one["model"] == "ascent"]

    def ratios(head: str, layers: Group, epoch: int) -> NDArray[np.float64]:
        """Gain per loss of every norm and seed."""
        wanted = (head, layers, epoch)
        return np.array([one["ratio"] for one in moves if (one["head"], one["layers"], one["epoch"]) == wanted]).ravel()

    def share(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
        return float(np.mean(first > second))

    last = max(one["epoch"] for one in moves)
    by_layers = {head: share(ratios(head, "embedding", FIRST), ratios(head, "last_blocks", FIRST)) for head in HEADS}
    by_epoch = {head: share(ratios(head, "embedding", FIRST), ratios(head, "embedding", last)) for head in HEADS}
    result.targets += [
        Target("tied: embedding beats last blocks, share of norms and seeds", by_layers["tied"], 0.8, False),
        Target("tied: first epoch beats last, embedding", by_epoch["tied"], 0.8, False),
    ]
    result.settings["outcome"] = {
        "embedding over last blocks, tied": outcome(by_layers["tied"] >= 0.8, by_layers["tied"] <= 0.2),
        "first epoch over last, tied": outcome(by_epoch["tied"] >= 0.8, by_epoch["tied"] <= 0.2),
    }
    told = result.settings["outcome"]
    strongest = max(one["norm"] for one in moves)
    ends = [
        one for one in moves if one["norm"] == strongest and one["epoch"] == FIRST and one["layers"] == "last_blocks"
    ]
    alone = {one["head"]: float(np.median(one["gain"])) for one in ends}
    result.notes += [
        f"embedding over last blocks: {told['embedding over last blocks, tied']} with a tied head (ahead in "
        f"{by_layers['tied']:.0%} of norms and seeds; untied {by_layers['untied']:.0%}); first epoch over last: "
        f"{told['first epoch over last, tied']} (ahead in {by_epoch['tied']:.0%} tied, {by_epoch['untied']:.0%} "
        f"untied); 'no effect' of the last blocks: at norm {strongest:g} they raise the secrets by "
        f"{alone['tied']:.2f} nats tied, {alone['untied']:.2f} untied",
        "median (lowest-highest) of the seeds; nats a token; gain per loss takes harm as 0.01 nats at least",
    ]
