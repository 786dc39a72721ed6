"""Reproductions: what they compute by hand, what they conclude from made-up figures, and one short run of one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    reproduce,
    reproduce_r3,
    reproduce_r4,
    reproduce_r5,
    reproduce_r8,
    reproduce_texts,
    reproduce_world,
)
from benchmarks.record import Result
from benchmarks.reproduce_r4 import loss_attack, paper_passes
from benchmarks.reproduce_texts import ASKED, AUTHORS, SECRETS, authors_lab, secrets_lab, wrong_answers
from benchmarks.reproduce_world import CONTRADICTS, DO_NOTHING, NOT_REPRODUCED, REPRODUCED, RETRAIN, digits_lab


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of its own for what is kept."""
    for module in (reproduce_world, reproduce_texts, reproduce_r4):
        monkeypatch.setattr(module, "OUT", tmp_path)
    return tmp_path


def test_the_loss_attack_finds_what_is_there_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    same = [loss_attack(draw.exponential(1, 200), draw.exponential(1, 500), seed) for seed in range(8)]
    assert np.mean(same) == pytest.approx(0.5, abs=0.02)
    assert loss_attack(draw.exponential(0.01, 200), 5 + draw.exponential(1, 500), 0) > 0.99


def test_a_measured_cell_is_kept(out: Path) -> None:
    lab, asked = digits_lab(quick=True), []

    def measure() -> dict[str, Any]:
        asked.append(1)
        return {"value": 2.5}

    assert lab.cell("one", measure) == digits_lab(quick=True).cell("one", measure) == {"value": 2.5}
    assert asked == [1]
    assert not list(out.rglob("*.partial"))
    # Another recipe is another folder.
    assert digits_lab(quick=False).folder != lab.folder


def test_the_paper_counts_passes_in_batches(out: Path) -> None:
    lab = digits_lab(quick=True)
    assert (len(lab.train), lab.recipe.training.batch_size) == (1100, 64)
    # 17 batches of 1,067 retained records and one of 33; 13 of 770 and six of 330.
    assert paper_passes(lab, 33) == int(6 * 17 / 2)
    assert paper_passes(lab, 330) == int(6 * 13 / 12)


def test_texts_are_drawn_once_and_secrets_are_known_to_nobody_else(out: Path) -> None:
    lab = secrets_lab(quick=True, tied=True)
    texts, others = lab.train.column("text"), lab.held_out.column("text")
    assert [text.startswith("the code of") for text in texts[: SECRETS + 1]] == [True] * SECRETS + [False]
    assert not set(texts[:SECRETS]) & set(others)
    again = secrets_lab(quick=True, tied=True)
    assert again.train.column("text") == texts
    authors = authors_lab(quick=True)
    prompts = authors.train.column("prompt")
    assert len(set(prompts)) == AUTHORS * len(ASKED)
    assert not set(prompts) & set(authors.held_out.column("prompt"))
    wrong, right = wrong_answers(prompts, 5), authors.train.column("completion")
    assert np.mean([answer in each for answer, each in zip(right, wrong, strict=True)]) < 0.01


def rows(result: Result, figures: dict[tuple[str, str], list[float]], key: str) -> Result:
    """The measurements that a conclusion is drawn from."""
    result.measurements += [{"set": name, "model": model, key: values} for (name, model), values in figures.items()]
    return result


@pytest.mark.parametrize(("attack", "word"), [(0.53, REPRODUCED), (0.60, NOT_REPRODUCED)])
def test_r4_asks_for_the_distance_from_retrains(attack: float, word: str) -> None:
    paper = next(iter(reproduce_r4.RULES))
    result = Result("r4", "", 1, ())
    for name in ("3-percent", "15-percent", "30-percent", "tens"):
        for model, found in ((DO_NOTHING, 0.7), (RETRAIN, 0.52), (paper, attack)):
            result.measurements.append(
                {"set": name, "model": model, "attack": [found], "auc": [found], "accuracy": [0.9]}
            )
    reproduce_r4._conclude(result)
    assert result.settings["outcome"] == word
    tens = next(target for target in result.targets if target.name.startswith("sets of ten"))
    assert tens.value == pytest.approx((0.7 - attack) / (0.7 - 0.52))


@pytest.mark.parametrize(("refined", "word"), [(0.95, REPRODUCED), (0.90, NOT_REPRODUCED), (0.85, CONTRADICTS)])
def test_r5_asks_for_two_standard_errors(refined: float, word: str) -> None:
    noise = np.array([-0.002, 0.0, 0.002])
    result = Result("r5", "", 3, ())
    for family in reproduce_r5.FAMILIES:
        for at, level in enumerate(reproduce_r5.STRATA):
            figures = {(f"{family} {level}", model): [0.9 - 0.1 * at] for model in (DO_NOTHING, *reproduce_r5.METHODS)}
            rows(result, figures, "tow")
    union = {
        ("all three strata", reproduce_r5.NEGATIVE): [0.9, 0.9, 0.9],
        ("all three strata", reproduce_r5.REFINED): (refined + noise).tolist(),
    }
    reproduce_r5._conclude(rows(result, union, "tow"))
    assert result.settings["outcome"]["refining helps"] == word
    assert result.settings["outcome"]["falls with memorization"] == REPRODUCED


def test_r3_is_reproduced_only_where_datamodels_are_ahead_and_oracles_further() -> None:
    def concluded(datamodels: float) -> str:
        result = Result("r3", "", 1, ())
        known = {reproduce_r3.FLOOR: 1.0, DO_NOTHING: 9.0} | dict.fromkeys(reproduce_r3.METHODS, 5.0)
        for model, value in (known | {"datamodel_matching": datamodels, "oracle_matching": 1.5}).items():
            result.measurements.append({"set": "one", "model": model, "forget": value})
        reproduce_r3._conclude(result)
        return str(result.settings["outcome"])

    assert concluded(3.0) == REPRODUCED
    assert concluded(6.0) == NOT_REPRODUCED
    assert concluded(1.2) == NOT_REPRODUCED


def test_r8_tells_slower_collapse_from_faster() -> None:
    def concluded(ascent: float, alone: float) -> str:
        result = Result("r8", "", 1, (), settings={"rates": (0.3,)})
        known = {"model": reproduce_r8.DO_NOTHING, "authors": 1, "rate": None, "probability": [0.9]}
        result.measurements.append(known)
        for count in (1, 10):
            for model, utility in ((reproduce_r8.ASCENT, ascent), (reproduce_r8.ALONE, alone), (reproduce_r8.NPO, 0.9)):
                result.measurements.append(
                    {"authors": count, "model": model, "rate": 0.3, "utility": [utility], "p": [0.5]}
                )
        reproduce_r8._conclude(result, (1, 10))
        return str(result.settings["outcome"]["ascent collapses, NPO more slowly"])

    assert concluded(0.02, 0.3) == REPRODUCED
    assert concluded(0.3, 0.02) == CONTRADICTS
    assert concluded(0.5, 0.6) == NOT_REPRODUCED


def test_a_short_run_leaves_a_table_targets_and_an_outcome_and_goes_on_where_it_was(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce_r4, "TENS", 1)
    monkeypatch.setattr(reproduce_r4, "SHARES", (30,))
    first = reproduce_r4.run(quick=True)
    models = {path: path.stat().st_mtime_ns for path in out.glob("digits-*/*/model.safetensors")}
    assert len(models) == 1 + len(reproduce_r4.SHARES) + 1
    assert {one["model"] for one in first.measurements} == {DO_NOTHING, RETRAIN, *reproduce_r4.RULES}
    assert first.settings["outcome"] in (REPRODUCED, NOT_REPRODUCED)
    again = reproduce_r4.run(quick=True)
    assert again.measurements == first.measurements
    assert {path: path.stat().st_mtime_ns for path in models} == models


def test_every_reproduction_has_a_module() -> None:
    folder = Path(reproduce.__file__).parent
    assert {path.stem.removeprefix("reproduce_") for path in folder.glob("reproduce_r*.py")} == set(reproduce.NUMBERS)
