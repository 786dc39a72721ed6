"""What baselines have in common: they take text classifiers, leave unseen records nearly alone, refuse what is odd."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from service.catalogue.families.baselines import BASELINES, BadTeacherParams
from service.catalogue.families.selective import SELECTIVE
from service.errors import BadParameters, Cancelled
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.test_nabla_tau import text_line
from workers.modeling import keeping
from workers.modeling.directories import sha256_file
from workers.modeling.distillation import Teacher, untrained
from workers.modeling.editing import Edit
from workers.modeling.ensembles import Ensemble
from workers.modeling.loading import load_model
from workers.planning.attempt import AttemptResult, run_attempt

QUICK: dict[str, dict[str, Any]] = {
    "bad_teacher": {"passes": 2},
    "controlled_ascent": {"passes": 2},
    "scrub": {"rounds": 2, "max_rounds": 1, "round_epochs": 0.5},
    "sfron": {"epochs": 0.5, "sample": 5},
    "ssd": {"sample": 5, "selection": 2.0},
}
TEXT = [spec.name for spec in (*BASELINES, *SELECTIVE) if "text-classification" in spec.tasks]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return text_line(tmp_path_factory.mktemp("texts"))


@pytest.mark.parametrize("name", TEXT)
def test_a_text_classifier_is_taken(name: str, texts: Line, tmp_path: Path) -> None:
    problem = texts.problem(20)
    params = QUICK.get(name, {"epochs": 0.5})
    result = run_attempt(name, params, problem, factories.context(), tmp_path / "out")
    assert result.backward_passes >= result.steps
    before, after = measure(texts, texts.base, problem), measure(texts, tmp_path / "out", problem)
    assert after != before
    assert after.unseen < before.unseen + 0.5


@pytest.mark.parametrize("name", ["random_label", "bad_teacher", "scrub", "controlled_ascent", "sfron"])
def test_records_that_were_never_seen_are_left_nearly_alone(name: str, digits_line: Line, tmp_path: Path) -> None:
    """Null: held-out records named as the forget set. Methods that push may not make them stand out."""
    unseen = digits_line.certification.subset(range(60))
    problem = dataclasses.replace(digits_line.problem(60), forget=unseen)
    params = {**QUICK, "random_label": {"visits": 5}, "bad_teacher": {"passes": 5}, "sfron": {"sample": 20}}[name]
    before = measure(digits_line, digits_line.base, problem)
    (tmp_path / "out").mkdir()
    run_attempt(name, params, problem, factories.context(1), tmp_path / "out")
    after = measure(digits_line, tmp_path / "out", problem)
    assert abs(after.auc - 0.5) < abs(before.auc - 0.5) + 0.1
    assert after.forget < before.forget + 0.5
    assert after.retain < before.retain + 0.4


@pytest.mark.parametrize("name", ["salun", "sfron", "masked_small_gradients", "controlled_ascent"])
def test_an_interrupted_run_ends_in_the_same_bytes(
    name: str, texts: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured or replaced before the first step is so again; what was learnt is put back."""
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.0)
    problem, params = texts.problem(20), QUICK.get(name, {"epochs": 0.5})
    asked: list[int] = []

    def run(place: str, last: int, scratch: Path | None) -> AttemptResult:
        asked.clear()
        context = dataclasses.replace(factories.context(2), scratch=scratch)
        context.cancelled = lambda: len(asked) >= last or asked.append(0) is not None
        return run_attempt(name, params, problem, context, tmp_path / place)

    whole = run("whole", 10_000, None)
    with pytest.raises(Cancelled):
        run("never", len(asked) - 1, tmp_path / "scratch")
    again = run("again", 10_000, tmp_path / "scratch")
    assert again.notes[0].startswith("resumed after step")
    assert again.steps == whole.steps
    weights = [sha256_file(tmp_path / place / "model.safetensors") for place in ("whole", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("name", "params", "told"),
    [
        ("scrub", {"rounds": 3, "max_rounds": 3}, "max_rounds must be less"),
        ("salun", {"density": 0}, "density"),
        ("sfron", {"ascent": -1}, "ascent"),
        ("l1_sparse", {"passes": 3}, "passes"),
        ("masked_small_gradients", {"renewed": 1.0}, "renewed"),
        ("ssd", {"learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, params: dict[str, Any], told: str, digits_line: Line, tmp_path: Path
) -> None:
    with pytest.raises(BadParameters, match=told):
        run_attempt(name, params, digits_line.problem(10), factories.context(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_scrub_rewinds_by_held_out_records_and_labels_need_a_classifier(
    digits_line: Line, chat_line: Line, tmp_path: Path
) -> None:
    problem = dataclasses.replace(digits_line.problem(10), selection=None)
    with pytest.raises(BadParameters, match="needs a held-out set"):
        run_attempt("scrub", {}, problem, factories.context(), tmp_path / "out")
    for name in ("random_label", "salun", "sfron", "masked_small_gradients", "convolution_transpose"):
        with pytest.raises(BadParameters, match="does not fit causal-lm"):
            run_attempt(name, {}, chat_line.problem(10), factories.context(), tmp_path / "out")


def test_an_ensemble_has_an_untrained_twin_and_a_teacher(digits_line: Line) -> None:
    edit = Edit(digits_line.problem(10), BadTeacherParams(), factories.context())
    members = {name: load_model(digits_line.base, "image-classification", torch.device("cpu")).model for name in "ab"}
    edit.model = Ensemble(members, "a test")  # type: ignore[assignment]
    twin = untrained(edit)
    assert isinstance(twin, Ensemble)
    assert list(twin.members) == ["a", "b"]
    said = Teacher(edit).logits(edit.forget, [0, 1, 2])
    assert torch.allclose(said, edit.answers(edit.forget, [0, 1, 2]).logits, atol=1e-5)
    assert float((Teacher(edit, twin).logits(edit.forget, [0, 1, 2]) - said).abs().mean()) > 0.1
