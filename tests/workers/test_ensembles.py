"""Classifiers that cannot be merged: one folder a shard, each loads by itself, together they answer with their mean."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import BadModel, MethodRefused
from service.registry.directories import check_model
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.recorder import TrainingRecorder
from workers.modeling.directories import directory_digest, sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model, load_task, weight_files
from workers.modeling.parts import StoredParts
from workers.modeling.problem import Problem
from workers.modeling.sharding import train_shards
from workers.modeling.tokenizers import train_tokenizer
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_record
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line
from workers.planning.provenance import check_provenance
from workers.scoring.score import score
from workers.serving.classify import predict
from workers.serving.loader import load_served
from workers.serving.pointer import Pointer
from workers.serving.schemas import PredictBody

TASK = "text-classification"
DIGEST = "00" * 32
CPU = torch.device("cpu")
BERT = {
    "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 48,
}  # fmt: skip


def questions(people: int = 40) -> MemoryRecords:
    """What customers ask, labelled by what about."""
    talks, _ = factories.conversations(people)
    labels = [int(name.rsplit("-", 1)[1]) for name in talks.ids]
    return MemoryRecords(TASK, talks.ids, talks.subjects, {"text": talks.columns["prompt"], "label": labels})


def recipe(tokenizer: object) -> Recipe:
    model = {"task": TASK, "config": BERT, "tokenizer": tokenizer}
    training = {"epochs": 16, "batch_size": 8, "learning_rate": 3e-3, "max_length": 48}
    return Recipe.model_validate({"model": model, "training": training, "sharding": {"shards": 3, "slices": 2}})


@pytest.fixture(scope="module")
def texts() -> MemoryRecords:
    return questions()


@pytest.fixture(scope="module")
def line(texts: MemoryRecords, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("ensemble")
    train_tokenizer(texts, 300, 48).save_pretrained(str(folder / "tokenizer"))
    chosen = recipe(str(folder / "tokenizer"))
    context = replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(chosen, texts, folder / "model", 0, context, Provenance(DIGEST))
    return folder / "model", chosen


def problem(base: Path, chosen: Recipe, data: MemoryRecords, ids: list[str]) -> Problem:
    return build_problem(open_line(base, TASK, data, None, None), ids, chosen, DIGEST, {})


def test_each_shard_loads_in_plain_transformers_and_together_they_answer_with_their_mean(
    line: tuple[Path, Recipe], texts: MemoryRecords
) -> None:
    base, _ = line
    facts = json.loads((base / "ensemble.json").read_bytes())
    assert facts["members"] == ["shard-00", "shard-01", "shard-02"]
    assert "cannot be merged" in facts["reason"]
    loaded = load_model(base, TASK, CPU)
    batch = loaded.task.batch(loaded.task.encode(texts.take(range(20))), list(range(20)))
    coded = AutoTokenizer.from_pretrained(base / "shard-01")(texts.columns["text"][:1])["input_ids"][0]
    assert coded == batch["input_ids"][0][: len(coded)].tolist()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = [
            AutoModelForSequenceClassification.from_pretrained(base / name).eval()(**inputs).logits
            for name in facts["members"]
        ]
        together = loaded.task.outputs(loaded.model, batch).logits  # type: ignore[union-attr]
    assert torch.allclose(together, torch.stack(logits).mean(dim=0), atol=1e-6)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_an_ensemble_is_scored_registered_and_served_like_any_model(
    line: tuple[Path, Recipe], texts: MemoryRecords
) -> None:
    base, _ = line
    table = score(load_model(base, TASK, CPU), texts, factories.context()).table
    assert table["correct"].to_numpy().mean() > 0.9
    facts = check_model(base, TASK)
    assert (facts.num_labels, facts.model_type) == (5, "bert")
    pointer = Pointer("support", TASK, "v", 1, directory_digest(base), base, "fp32")
    served = load_served(pointer, CPU, threading.Lock())
    told = predict(served, PredictBody.model_validate({"instances": [{"text": texts.columns["text"][3]}]}))
    assert told[0]["label"] == texts.columns["label"][3]
    assert load_task(base, TASK).name == TASK


def test_forgetting_changes_the_affected_shard_alone_and_is_the_training_without_the_record(
    line: tuple[Path, Recipe], texts: MemoryRecords, tmp_path: Path
) -> None:
    base, chosen = line
    table = StoredParts(base, "shards").table
    ids = table.ids[(table.part == 1) & (table.slice == 1)][:5].tolist()
    asked = problem(base, chosen, texts, ids)
    result = run_attempt("sharded", {}, asked, factories.context(3), tmp_path / "out")
    assert "published as 3 shards: BertForSequenceClassification cannot be merged" in result.notes[1]
    changed = [
        path.parent.name
        for path in weight_files(tmp_path / "out")
        if sha256_file(path) != sha256_file(base / path.relative_to(tmp_path / "out"))
    ]
    assert changed == ["shard-01"]
    table, records, _ = StoredParts(base, "shards").without(asked.retain)
    (tmp_path / "hand").mkdir()
    provenance = Provenance(DIGEST, num_labels=5)
    made = train_shards(chosen, records, tmp_path / "hand", 0, factories.context(), provenance, table)
    record = read_record(tmp_path / "out")
    assert record is not None
    assert record.weights_digest == made.weights_digest
    assert record.tokens == made.tokens
    told = check_provenance(tmp_path / "out", base, ids, set(texts.ids.tolist()))
    assert (told.claimed, told.holds) == (True, True), told.reason


def test_approximate_methods_take_an_ensemble_for_a_model(
    line: tuple[Path, Recipe], texts: MemoryRecords, tmp_path: Path
) -> None:
    base, chosen = line
    asked = problem(base, chosen, texts, texts.ids[:10].tolist())
    asked = replace(asked, selection=questions(60).subset(range(200, 300)))
    run_attempt("negative_gradient_plus", {"passes": 1, "min_steps": 1}, asked, factories.context(), tmp_path / "out")
    assert [path.parent.name for path in weight_files(tmp_path / "out")] == ["shard-00", "shard-01", "shard-02"]
    edited, before = (load_model(place, TASK, CPU).model.state_dict() for place in (tmp_path / "out", base))
    assert edited.keys() == before.keys()
    assert not all(torch.equal(edited[name], before[name]) for name in before)
    # Its shards' states are not those of the edited model any more.
    with pytest.raises(MethodRefused, match="no shards are left"):
        run_attempt("sharded", {}, replace(asked, base_dir=tmp_path / "out"), factories.context(), tmp_path / "next")


def test_a_digest_of_the_weights_sees_every_shard(line: tuple[Path, Recipe], tmp_path: Path) -> None:
    base, _ = line
    shutil.copytree(base, tmp_path / "copy")
    first, second = (tmp_path / "copy" / name / "model.safetensors" for name in ("shard-00", "shard-01"))
    shutil.copyfile(second, first)
    told = check_provenance(tmp_path / "copy", base, ["nobody"], {"nobody"})
    assert (told.holds, told.reason) == (False, "the weights are not those that the training record describes")


def test_a_tokenizer_that_comes_out_differently_is_refused_and_the_same_one_is_not(
    texts: MemoryRecords, tmp_path: Path
) -> None:
    chosen = recipe({"train": 300})
    train_by_recipe(chosen, texts, tmp_path / "model", 0, factories.context(), Provenance(DIGEST))
    before = train_tokenizer(texts, 300, 48).backend_tokenizer.to_str()
    outcomes = set()
    for person in ("p00001", "p00002", "p00003", "p00004"):
        gone = np.flatnonzero(texts.subjects == person)
        retained = texts.subset(np.flatnonzero(texts.subjects != person).tolist())
        same = train_tokenizer(retained, 300, 48).backend_tokenizer.to_str() == before
        asked = problem(tmp_path / "model", chosen, texts, texts.ids[gone].tolist())
        if same:
            run_attempt("sharded", {}, asked, factories.context(), tmp_path / person)
        else:
            with pytest.raises(MethodRefused, match="the tokenizer, trained again without the forgotten records"):
                run_attempt("sharded", {}, asked, factories.context(), tmp_path / person)
        outcomes.add(same)
    assert False in outcomes


def test_a_list_of_members_is_not_believed(line: tuple[Path, Recipe], tmp_path: Path) -> None:
    base, _ = line
    shutil.copytree(base, tmp_path / "copy", ignore=shutil.ignore_patterns(LINEAGE))
    path = tmp_path / "copy" / "ensemble.json"
    facts = json.loads(path.read_bytes())
    for members in ([], ["../elsewhere"], "shard-00", ["shard-00", "shard-07"]):
        path.write_text(json.dumps(facts | {"members": members}))
        with pytest.raises(BadModel):
            load_model(tmp_path / "copy", TASK, CPU)
        with pytest.raises(BadModel):
            check_model(tmp_path / "copy", TASK)
