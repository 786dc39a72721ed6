"""The gate on real models, by measurement alone and by procedure: original, true retrain, planted wrongs."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from service.catalogue.recipes import Recipe
from service.errors import BadDataset, BadModel, Unevaluable
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.verdict import disagreements
from tests.workers.factories import MemoryRecords, context, conversations, digits, gpt2_recipe, resnet_recipe
from workers.modeling.records import held_out_key, split_held_out
from workers.modeling.train import Provenance, train_by_recipe
from workers.modeling.training_record import read_record, weights_digest, write_exposures, write_record
from workers.planning import evaluation
from workers.planning.evaluation import evaluate
from workers.planning.problems import open_line
from workers.planning.provenance import check_provenance

DATA, HOLDOUT = "d1" * 32, "e2" * 32


@dataclass(frozen=True)
class Line:
    """A model with its data, and a retrain without the forgotten records."""

    data: MemoryRecords
    held_out: MemoryRecords
    forget: list[str]
    recipe: Recipe
    original: Path
    retrained: Path

    def evaluate(self, candidate: Path, **options: Any) -> Evaluation:
        line = open_line(self.original, self.data.task, self.data, self.held_out, HOLDOUT)
        given: dict[str, Any] = {
            "line": line, "candidate_dir": candidate, "retrained_dirs": [], "forget_ids": self.forget,
            "policy": Policy(), "alpha": None, "ignore_record": False, "context": context(),
        }  # fmt: skip
        found, tables = evaluate(**(given | options))
        assert disagreements(found, Policy().verification) == []
        assert set(tables["candidate"]["set"].to_pylist()) == {"forget", "retain", "held_out"} or self.held_out is None
        return found


def train_line(folder: Path, recipe: Recipe, sets: tuple[MemoryRecords, MemoryRecords], forget: int) -> Line:
    """Train on everything, and again on everything but the first `forget` records."""
    data, held_out = sets
    provenance = Provenance(DATA, HOLDOUT)
    train_by_recipe(recipe, data, folder / "original", 0, context(), provenance)
    retain = data.subset(range(forget, len(data)))
    train_by_recipe(recipe, retain, folder / "retrained", 1, context(), replace(provenance, excluded=forget))
    names = [str(name) for name in data.ids[:forget]]
    return Line(data, held_out, names, recipe, folder / "original", folder / "retrained")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Digits with wrong labels, memorised: 150 records of 15 people to forget."""
    recipe = resnet_recipe(epochs=40, batch_size=32, learning_rate=3e-3)
    small = recipe.model.config | {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 8}  # type: ignore[operator]
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"config": small})})
    return train_line(tmp_path_factory.mktemp("images"), recipe, digits(500, 700), 150)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Conversations, memorised; each training has a tokenizer of its own."""
    recipe = gpt2_recipe(epochs=40, batch_size=32, learning_rate=5e-3)
    return train_line(tmp_path_factory.mktemp("texts"), recipe, conversations(60, 80), 100)


@pytest.fixture
def copy(images: Line, tmp_path: Path) -> Path:
    """A copy of the retrained model that a test may damage."""
    return Path(shutil.copytree(images.retrained, tmp_path / "candidate"))


def change_weights(directory: Path, function: Any) -> None:
    """Rewrite every floating-point tensor, and the training record's digest with them."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    save_file({name: function(value) if value.is_floating_point() else value for name, value in tensors.items()}, path)
    record = read_record(directory)
    if record is not None:
        write_record(directory, record.model_copy(update={"weights_digest": weights_digest([path])}))


def test_a_retrain_passes_by_procedure_and_the_attacks_are_printed(images: Line) -> None:
    found = images.evaluate(images.retrained)
    assert (found.verdict, found.grade, found.basis) == ("pass", "A", "procedure")
    membership = found.check("membership_auc")
    assert membership is not None
    assert membership.role == "diagnostic"
    assert membership.estimate is not None
    certification = split_held_out(images.held_out, held_out_key(HOLDOUT))[1]
    assert (membership.n, membership.m) == (150, len(certification)) == (found.records.forget, found.records.held_out)
    assert len(certification) < len(images.held_out)


def test_by_measurement_alone_a_retrain_is_not_failed_and_the_untouched_model_is(images: Line) -> None:
    retrained = images.evaluate(images.retrained, ignore_record=True)
    assert retrained.basis == "measurement"
    assert retrained.verdict in ("pass", "inconclusive")
    assert images.evaluate(images.original, ignore_record=True).verdict == "fail"
    attack = images.evaluate(images.original, ignore_record=True).check("membership_auc")
    assert attack is not None
    assert attack.verdict == "fail"


def test_a_memorising_language_model_fails_and_its_retrain_does_not(texts: Line) -> None:
    untouched = texts.evaluate(texts.original, ignore_record=True)
    attack = untouched.check("membership_auc")
    assert attack is not None
    assert (untouched.verdict, attack.verdict, untouched.unit) == ("fail", "fail", "token")
    retrained = texts.evaluate(texts.retrained, ignore_record=True)
    assert retrained.unit == "byte"  # a tokenizer trained without them is another one
    assert retrained.verdict in ("pass", "inconclusive")
    after = retrained.check("membership_auc")
    assert after is not None
    assert (attack.estimate or 0) - (after.estimate or 1) > 0.2
    assert texts.evaluate(texts.retrained).grade == "A"


def test_each_model_is_scored_once(images: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    from workers.scoring.score import score as plain

    def counted(loaded: Any, records: Any, *rest: Any) -> Any:
        seen.extend((str(loaded.dir), str(name)) for name in records.ids)
        return plain(loaded, records, *rest)

    monkeypatch.setattr("workers.planning.evaluation.score", counted)
    found = images.evaluate(images.retrained, retrained_dirs=[images.retrained], forget_ids=images.forget * 2)
    assert set(found.forward_passes) == {"original", "candidate", "retrained-1"}
    per_model = found.records.forget + found.records.retain_scored + found.records.held_out
    assert len(seen) == 3 * per_model
    assert len(found.models.retrained) == 1
    assert found.metrics["tow"] == pytest.approx(1.0)


def test_progress_goes_from_zero_to_one(images: Line) -> None:
    fractions: list[float] = []
    images.evaluate(images.retrained, context=replace(context(), progress=lambda told: fractions.append(told.fraction)))
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_a_copy_in_other_files_is_still_the_original(images: Line, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(images.original, tmp_path / "twin"))
    path = twin / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "note": "another file digest"})
    found = images.evaluate(twin, ignore_record=True)
    distinct = found.check("distinct")
    assert distinct is not None
    assert (found.verdict, distinct.verdict) == ("fail", "fail")


def test_a_model_without_weights_that_matter_fails(images: Line, copy: Path) -> None:
    change_weights(copy, lambda value: value * 1e-3)
    assert images.evaluate(copy, ignore_record=True).verdict == "fail"
    assert images.evaluate(copy).verdict == "fail"


def test_weights_that_are_not_finite_are_never_judged(images: Line, copy: Path) -> None:
    change_weights(copy, lambda value: value * float("nan"))
    with pytest.raises(Unevaluable, match="not finite"):
        images.evaluate(copy)


def test_a_directory_that_cannot_be_loaded_names_the_model(images: Line, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(BadModel, match="the candidate model"):
        images.evaluate(copy)


def test_empty_and_unknown_forget_sets_are_refused(images: Line) -> None:
    with pytest.raises(Unevaluable, match="forget set is empty"):
        images.evaluate(images.retrained, forget_ids=[])
    with pytest.raises(Unevaluable, match="whole data set"):
        images.evaluate(images.retrained, forget_ids=[str(name) for name in images.data.ids])
    with pytest.raises(BadDataset):
        images.evaluate(images.retrained, forget_ids=["nobody"])


def provenance(line: Line, candidate: Path, **options: Any) -> tuple[bool, str]:
    found = check_provenance(candidate, line.original, set(line.forget), set(line.data.ids.tolist()), **options)
    return found.holds, found.reason


def test_provenance_holds_for_a_retrain_alone(images: Line) -> None:
    assert provenance(images, images.retrained)[0]
    held, why = provenance(images, images.original)
    assert not held
    assert "150 of the 150 forgotten records were in its batches" in why


def edit_record(directory: Path, **values: Any) -> None:
    record = read_record(directory)
    assert record is not None
    write_record(directory, record.model_copy(update=values))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data_digest": "00" * 32}, "another data"),
        ({"recipe_digest": "00" * 32}, "another recipe"),
        ({"weights_digest": "00" * 32}, "weights are not those"),
        ({"exposures_digest": "00" * 32}, "not the one that the training record describes"),
        ({"parent": "00" * 32}, "not an exact method"),
    ],
)
def test_every_digest_of_the_record_counts(images: Line, copy: Path, change: dict[str, str], why: str) -> None:
    edit_record(copy, **change)
    held, told = provenance(images, copy)
    assert not held
    assert why in told


def test_a_forged_list_of_records_is_found(images: Line, copy: Path) -> None:
    for names, why in (
        (images.data.ids[149:], "1 of the 150"),
        (np.array(["x"]), "not in the data"),
        (np.array([]), "no records"),
    ):
        digest = write_exposures(copy, names, np.ones(len(names)))
        edit_record(copy, exposures_digest=digest)
        assert why in provenance(images, copy)[1]
    digest = write_exposures(copy, images.data.ids[150:], None)
    edit_record(copy, exposures_digest=digest)
    assert "how often" in provenance(images, copy)[1]


def test_tampered_weights_lose_the_procedure(images: Line, copy: Path) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    save_file({name: value + 0.001 * torch.sign(value) for name, value in tensors.items()}, path)
    assert "weights are not those" in provenance(images, copy)[1]
    assert images.evaluate(copy).basis == "measurement"


def test_without_records_the_caller_says_what_data_and_recipe_are(images: Line, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(images.original, tmp_path / "bare"))
    (bare / "training_record.json").unlink()
    line = replace(images, original=bare)
    assert "not known" in provenance(line, images.retrained)[1]
    assert provenance(line, images.retrained, data_digest=DATA, recipe=images.recipe)[0]
    assert not provenance(line, images.retrained, data_digest="00" * 32, recipe=images.recipe)[0]
    (bare / "training_record.json").write_text("{")
    assert not provenance(line, images.retrained)[0]
    assert (
        provenance(images, bare) == (False, "the candidate has no training record")
        or "valid" in provenance(images, bare)[1]
    )


def test_one_retained_record_keeps_its_class_whether_it_is_scored_or_not(
    images: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a class was forgotten as a whole is read off all retained records, of which only a sample is scored."""
    monkeypatch.setattr(evaluation, "RETAIN_SAMPLE", 20)
    labels = np.array(images.data.columns["label"])
    threes = [str(name) for name in images.data.ids[labels == 3]]
    certification = split_held_out(images.held_out, held_out_key(HOLDOUT))[1]
    taught = len(certification) - np.count_nonzero(np.array(certification.column("label")) == 3)
    for forgotten, expected in ((threes, taught), (threes[1:], len(certification))):
        utility = images.evaluate(images.retrained, forget_ids=forgotten, ignore_record=True).check("utility")
        assert utility is not None
        assert utility.n == expected < len(images.held_out)
