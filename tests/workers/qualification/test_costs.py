"""Which sizes are worth qualifying by default, and what a qualification is said to take before it is begun."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.catalogue.methods import find_method
from service.verification.policy import Policy
from tests.workers.factories import digits
from workers.lineage.canaries import CanarySet
from workers.modeling.recipe import load_recipe
from workers.modeling.training_record import read_record
from workers.planning.problems import Line
from workers.qualification.costs import Cost, cost_of
from workers.qualification.designs import Job, default_sizes
from workers.qualification.runs import Setting


@pytest.mark.parametrize(
    ("margins", "records", "sizes"),
    [
        ({"300": 0.05, "33": 0.15}, 100_000, [10, 100]),
        ({"300": 0.05, "33": 0.15}, 999, [10]),  # a hundred are more than a tenth
        ({"9": 0.3}, 1000, [1, 10, 100]),
        ({"10": 0.3}, 1000, [10, 100]),
        ({"300": 0.05}, 1000, [100]),
        ({"300": 0.05}, 500, [10]),  # nothing fits that could pass: the largest that fits
        ({"33": 0.15}, 5, [1]),
    ],
)
def test_sizes_are_those_that_an_approximate_attempt_could_pass_at(
    margins: dict[str, float], records: int, sizes: list[int]
) -> None:
    policy = Policy.model_validate({"verification": {"auc_margin": margins}})
    assert default_sizes(policy.verification, records) == sizes


def jobs(size: int, count: int) -> list[Job]:
    return [Job("random", size, at, tuple(f"d{at:03d}-{row}" for row in range(size))) for at in range(count)]


def line_of(shelf: Path) -> Line:
    people, held_out = digits(200, 420)
    canaries: CanarySet | None = None
    return Line(shelf / "model", "image-classification", people, held_out, "e2" * 32, canaries, frozenset())


def setting_of(shelf: Path, work: Path, method: str = "nabla_tau") -> Setting:
    recipe = load_recipe(shelf / "recipe.toml")
    return Setting(find_method(method), {}, Policy(), recipe, "d1" * 32, {}, 0, work)


def test_the_cost_is_that_of_what_is_left(shelf: Path, tmp_path: Path) -> None:
    line, setting = line_of(shelf), setting_of(shelf, tmp_path)
    packs = [jobs(1, 6), [replace(job, design="memorised") for job in jobs(10, 2)]]
    whole = cost_of(setting, line, packs, copies=40)
    assert (whole.trainings, whole.runs) == (3, 8)  # two retrains and the base with copies
    assert whole.hopeless == {1: 6, 10: 20}
    assert whole.seconds is not None
    (tmp_path / "runs").mkdir()
    for job in packs[1]:
        (tmp_path / "runs" / f"{job.name}.json").touch()
    (tmp_path / "planted").mkdir()
    rest = cost_of(setting, line, packs, copies=40)
    assert (rest.trainings, rest.runs) == (1, 6)
    assert rest.seconds is not None
    assert rest.seconds < whole.seconds
    exact = cost_of(setting_of(shelf, tmp_path, "retrain"), line, packs, copies=40)
    record = read_record(shelf / "model")
    assert record is not None
    assert exact.seconds is not None
    assert exact.seconds - rest.seconds == pytest.approx(6 * 0.8 * record.seconds)


def test_it_is_told_in_sentences_with_hours_where_a_training_was_timed(shelf: Path, tmp_path: Path) -> None:
    assert Cost(4, 160, 9000.0, {}).sentences == [
        "160 simulated deletions beside 4 trainings are left to run: about 2.5 hours"
    ]
    assert "about 3 days" in Cost(4, 160, 3 * 86400.0, {}).sentences[0]
    assert "about 40 seconds" in Cost(1, 3, 40.0, {}).sentences[0]
    untimed = cost_of(setting_of(shelf, tmp_path), replace(line_of(shelf), base_dir=tmp_path), [jobs(100, 3)], 0)
    assert (untimed.seconds, untimed.hopeless) == (None, {})
    assert untimed.sentences == [
        "3 simulated deletions beside 1 trainings are left to run: no training of this model was timed"
    ]
