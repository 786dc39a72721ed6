"""Replay: byte for byte the logged run without the forgotten records, from whatever checkpoint; else refused."""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.catalogue.recipes import Recipe
from service.errors import MethodRefused
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.store import ModelHistory
from workers.modeling.batching import Encoded
from workers.modeling.directories import LINEAGE, sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.problem import Problem
from workers.modeling.train import train_by_recipe
from workers.modeling.training import planned
from workers.modeling.training_record import read_exposures, read_record
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.costs import exact_options
from workers.planning.problems import build_problem, open_line
from workers.planning.provenance import check_provenance

DIGEST = "00" * 32


@dataclasses.dataclass(frozen=True)
class Logged:
    """A model trained with its lineage, and its data."""

    base: Path
    recipe: Recipe
    data: MemoryRecords

    def late(self, count: int) -> list[str]:
        """The records that were met last in the first epoch."""
        history = ModelHistory(self.base)
        first = history.log.first_steps(len(history.records.ids))
        return history.records.ids[np.argsort(first, kind="stable")[-count:]].tolist()

    def problem(self, ids: list[str], base: Path | None = None, data: MemoryRecords | None = None) -> Problem:
        line = open_line(base or self.base, self.data.task, data or self.data, None, None)
        return build_problem(line, ids, self.recipe, DIGEST, {})

    def replay(self, ids: list[str], out: Path, **params: Any) -> AttemptResult:
        return run_attempt("replay", params, self.problem(ids), factories.context(7), out)


def train(folder: Path, recipe: Recipe, data: MemoryRecords) -> Logged:
    context = replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(recipe, data, folder / "model", 0, context, Provenance(DIGEST))
    return Logged(folder / "model", recipe, data)


def with_training(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    recipe = factories.resnet_recipe(epochs=2, batch_size=32, learning_rate=3e-3)
    recipe = with_training(recipe, augmentation="flip-crop")
    return train(tmp_path_factory.mktemp("images"), recipe, factories.digits(500, 10)[0])


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """GPT-2 with dropout and a tokenizer that is not made from the data."""
    folder = tmp_path_factory.mktemp("chats")
    data = factories.conversations(60, 1)[0]
    recipe = factories.gpt2_recipe(epochs=2, batch_size=8, learning_rate=3e-3)
    from workers.modeling.tokenizers import train_tokenizer

    train_tokenizer(factories.conversations(40, 1)[0], 400, 96).save_pretrained(str(folder / "tokenizer"))
    model = recipe.model.model_copy(update={"tokenizer": str(folder / "tokenizer")})
    config = dict(model.config or {}) | {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    recipe = recipe.model_copy(update={"model": model.model_copy(update={"config": config})})
    return train(folder, with_training(recipe, accumulation=2), data)


@pytest.mark.parametrize("kind", ["images", "chats"])
def test_it_is_byte_for_byte_the_run_from_the_beginning(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    logged: Logged = request.getfixturevalue(kind)
    ids = logged.late(6)
    short = logged.replay(ids, tmp_path / "short")
    whole = logged.replay(ids, tmp_path / "whole", start="beginning")
    digests = {sha256_file(tmp_path / name / "model.safetensors") for name in ("short", "whole")}
    assert len(digests) == 1
    assert digests != {sha256_file(logged.base / "model.safetensors")}
    assert short.steps < whole.steps == ModelHistory(logged.base).steps
    assert short.exact
    share = {option.method: option.share for option in exact_options(logged.base, logged.recipe, ids)}["replay"]
    assert short.steps / whole.steps == pytest.approx(share)
    assert share < 1


def test_nothing_left_out_is_the_run_that_was(images: Logged, tmp_path: Path) -> None:
    """The rule itself: with an id that no batch holds the logged run comes out again."""
    stranger = MemoryRecords(images.data.task, ["stranger"], ["stranger"], images.data.take([0]))
    problem = replace(images.problem(images.late(1)), forget=stranger, retain=images.data)
    run_attempt("replay", {"start": "beginning"}, problem, factories.context(), tmp_path / "again")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "again", images.base)]
    assert weights[0] == weights[1]


def test_it_agrees_with_leaving_them_out_by_hand(images: Logged, tmp_path: Path) -> None:
    """An independent loop: plain torch over the planned batches, the forgotten rows removed."""
    ids = np.random.default_rng(5).choice(images.data.ids, 40, replace=False).tolist()
    images.replay(ids, tmp_path / "replayed")
    by_hand = leave_out_by_hand(images, set(ids), tmp_path / "hand")
    replayed = load_model(tmp_path / "replayed", "image-classification", torch.device("cpu")).model.state_dict()
    for name, value in by_hand.items():
        assert torch.equal(value, replayed[name]), name


def leave_out_by_hand(logged: Logged, gone: set[str], folder: Path) -> dict[str, torch.Tensor]:
    from workers.modeling.devices import seed_everything
    from workers.modeling.fresh import fresh_model
    from workers.modeling.images import flip_crop

    folder.mkdir()
    seed_everything(0, 1)
    loaded = fresh_model(logged.recipe, logged.data, folder, Provenance(DIGEST), factories.context())
    model, plan = loaded.model, logged.recipe.training
    data = Encoded(loaded.task, logged.data)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    model.train()
    for one in planned(data, plan, 0):
        rows = [row for row in one.rows if str(logged.data.ids[row]) not in gone]
        assert len(rows) > 1
        torch.manual_seed(one.seed)
        batch = data.batch(rows, torch.device("cpu"))
        pixels = flip_crop(batch["pixel_values"], torch.default_generator)
        loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = one.rate
        optimizer.step()
    return dict(model.state_dict())


def test_accumulated_batches_weigh_their_share_of_a_step(tmp_path: Path) -> None:
    """An independent loop again, with SGD: three batches a step, and a last step of fewer."""
    recipe = factories.resnet_recipe(epochs=1, batch_size=32, learning_rate=1e-2)
    recipe = with_training(recipe, accumulation=3, optimizer="sgd", weight_decay=0.0)
    logged = train(tmp_path, recipe, factories.digits(230, 10)[0])
    expected = stepped_by_hand(logged, tmp_path / "hand")
    got = load_model(logged.base, "image-classification", torch.device("cpu")).model.state_dict()
    for name, value in expected.items():
        assert torch.allclose(value, got[name], rtol=1e-4, atol=1e-6), name


def stepped_by_hand(logged: Logged, folder: Path) -> dict[str, torch.Tensor]:
    """Mean gradients of the batches of a step averaged, then momentum 0.9."""
    from workers.modeling.devices import seed_everything
    from workers.modeling.fresh import fresh_model

    folder.mkdir()
    seed_everything(0, 1)
    loaded = fresh_model(logged.recipe, logged.data, folder, Provenance(DIGEST), factories.context())
    model, data = loaded.model, Encoded(loaded.task, logged.data)
    model.train()
    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    steps: dict[int, list[Any]] = {}
    for one in planned(data, logged.recipe.training, 0):
        steps.setdefault(one.step, []).append(one)
    assert len({len(group) for group in steps.values()}) == 2
    for group in steps.values():
        sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for one in group:
            batch = data.batch(one.rows, torch.device("cpu"))
            loss = torch.nn.functional.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"])
            for name, gradient in zip(sums, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                sums[name] += gradient
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                momentum[name] = 0.9 * momentum[name] + sums[name] / len(group)
                parameter.sub_(group[0].rate * momentum[name])
    return dict(model.state_dict())


def test_a_lone_row_leaves_batch_normalisation_as_it_was(images: Logged) -> None:
    """It uses the running statistics, does not change them, and the next batch is normalised by itself again."""
    from workers.modeling.optimizers import make_optimizer
    from workers.modeling.training import Loop

    loaded = load_model(images.base, "image-classification", torch.device("cpu"))
    plan = images.recipe.training
    loop = Loop(
        loaded.model,
        Encoded(loaded.task, images.data),
        plan,
        make_optimizer(loaded.model, "sgd", 0.0, 0.0),
        factories.context(),
    )
    one = next(iter(planned(Encoded(loaded.task, images.data), plan, 0)))
    name = next(key for key in loaded.model.state_dict() if key.endswith("running_mean"))
    before = loaded.model.state_dict()[name].clone()
    loop.through([replace(one, rows=one.rows[:1], rate=0.0)], 0, 1)
    assert torch.equal(loaded.model.state_dict()[name], before)
    loop.through([replace(one, rows=one.rows[:1], rate=0.0), replace(one, step=1, rate=0.0)], 0, 2)
    assert not torch.equal(loaded.model.state_dict()[name], before)


def test_a_whole_batch_and_all_but_one_of_a_batch_may_be_forgotten(images: Logged, tmp_path: Path) -> None:
    history = ModelHistory(images.base)
    batches = [one.rows for one in history.log.batches() if one.epoch == 0]
    ids = history.records.ids[[*batches[-2], *batches[-1][1:]]].tolist()
    images.replay(ids, tmp_path / "short")
    images.replay(ids, tmp_path / "whole", start="beginning")
    digests = {sha256_file(tmp_path / name / "model.safetensors") for name in ("short", "whole")}
    assert len(digests) == 1
    log = ModelHistory(tmp_path / "short").log
    assert [one.rows for one in log.batches() if one.epoch == 0][-2] == []
    assert log.steps == history.steps


def test_the_record_names_the_method_and_holds_no_forgotten_record(images: Logged, tmp_path: Path) -> None:
    ids = images.late(20)
    images.replay(ids, tmp_path / "out")
    record = read_record(tmp_path / "out")
    assert record is not None
    assert record.unlearning is not None
    assert (record.unlearning.method, record.records, record.excluded) == ("replay", 480, 20)
    seen = read_exposures(tmp_path / "out").to_pydict()
    assert not set(seen["record_id"]) & set(ids)
    assert set(seen["exposures"]) == {2}
    found = check_provenance(tmp_path / "out", images.base, set(ids), set(images.data.ids.tolist()))
    assert found.holds, found.reason
    log = ModelHistory(tmp_path / "out")
    assert not set(log.records.ids.tolist()) & set(ids)
    assert log.log.exposures(480).tolist() == [2] * 480


def test_one_deletion_after_another(images: Logged, tmp_path: Path) -> None:
    """The second replay follows the first one's log, and equals forgetting both at once from the beginning."""
    ids = images.late(30)
    images.replay(ids[:10], tmp_path / "first")
    second = dataclasses.replace(images, base=tmp_path / "first", data=images.data.subset(kept(images, ids[:10])))
    second.replay(ids[10:], tmp_path / "second")
    images.replay(ids, tmp_path / "both", start="beginning")
    digests = {sha256_file(tmp_path / name / "model.safetensors") for name in ("second", "both")}
    assert len(digests) == 1


def kept(logged: Logged, gone: list[str]) -> list[int]:
    return [at for at, name in enumerate(logged.data.ids.tolist()) if name not in gone]


def test_after_an_approximate_edit_it_is_still_exact(images: Logged, tmp_path: Path) -> None:
    """An edited version carries the log without the forgotten records and the states from before they were met."""
    ids = images.late(40)
    line = open_line(images.base, images.data.task, images.data, factories.digits(500, 200)[1], "6b" * 32)
    problem = build_problem(line, ids[:20], images.recipe, DIGEST, {})
    run_attempt("nabla_tau", {"passes": 1, "min_steps": 1}, problem, factories.context(), tmp_path / "edited")
    record = read_record(tmp_path / "edited")
    assert record is not None
    assert (record.edits, record.edited_records) == (1, 20)
    edited = ModelHistory(tmp_path / "edited")
    assert edited.facts.edited
    first = ModelHistory(images.base).first_exposure(images.data.subset(kept(images, ids[:20])))
    assert all(point.step <= first for point in edited.checkpoints)
    rest = dataclasses.replace(images, base=tmp_path / "edited", data=images.data.subset(kept(images, ids[:20])))
    rest.replay(ids[20:], tmp_path / "second")
    images.replay(ids, tmp_path / "both")
    digests = {sha256_file(tmp_path / name / "model.safetensors") for name in ("second", "both")}
    assert len(digests) == 1
    assert (read_record(tmp_path / "second") or record).edits == 0


def test_what_left_the_data_before_is_left_out_from_its_own_first_exposure(images: Logged, tmp_path: Path) -> None:
    """Five early records are gone from the data without being named: no state that met them is gone on from."""
    late, history = images.late(5), ModelHistory(images.base)
    first = history.log.first_steps(len(history.records.ids))
    early = history.records.ids[np.argsort(first, kind="stable")[:5]].tolist()
    fewer = dataclasses.replace(images, data=images.data.subset(kept(images, early)))
    short, whole = (fewer.replay(late, tmp_path / start, start=start) for start in ("newest", "beginning"))
    digests = {sha256_file(Path(made.out) / "model.safetensors") for made in (short, whole)}
    assert len(digests) == 1
    assert short.steps == history.steps
    assert not set(ModelHistory(tmp_path / "newest").records.ids.tolist()) & {*late, *early}


def test_one_lost_checkpoint_that_is_not_needed_stops_nothing(images: Logged, tmp_path: Path) -> None:
    base = damaged(images, tmp_path)
    points = ModelHistory(base).checkpoints
    points[0].path.unlink()
    problem = images.problem(images.late(3), base=base)
    run_attempt("replay", {}, problem, factories.context(), tmp_path / "out")
    assert points[0].step not in [point.step for point in ModelHistory(tmp_path / "out").checkpoints]


def test_a_refusal_leaves_no_thread_behind(images: Logged, tmp_path: Path) -> None:
    import threading

    base = damaged(images, tmp_path)
    for path in (base / LINEAGE / "checkpoints").glob("*.safetensors"):
        path.unlink()
    refused(images, base, tmp_path / "out")
    assert not [thread.name for thread in threading.enumerate() if thread.name == "checkpoints"]


def test_a_later_plan_compares_with_a_whole_training(images: Logged, tmp_path: Path) -> None:
    images.replay(images.late(3), tmp_path / "out")
    before, after = read_record(images.base), read_record(tmp_path / "out")
    assert before is not None
    assert after is not None
    assert after.seconds == before.seconds


def damaged(logged: Logged, folder: Path) -> Path:
    return Path(shutil.copytree(logged.base, folder / "damaged"))


def refused(logged: Logged, base: Path, out: Path, **changes: Any) -> str:
    problem = replace(logged.problem(logged.late(5), base=base), **changes)
    with pytest.raises(MethodRefused) as caught:
        run_attempt("replay", {}, problem, factories.context(), out)
    assert not out.exists()
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_a_checkpoint_with_a_wrong_digest_is_refused(images: Logged, tmp_path: Path) -> None:
    base = damaged(images, tmp_path)
    for path in (base / LINEAGE / "checkpoints").glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert ".safetensors is missing or not the file" in refused(images, base, tmp_path / "out")


def test_a_log_shorter_than_the_run_is_refused(images: Logged, tmp_path: Path) -> None:
    """Also where every digest was made to fit: the log must cover all steps and every checkpoint."""
    from workers.lineage.log import write_log

    base = damaged(images, tmp_path)
    history = ModelHistory(images.base)
    half = len(history.log) // 2
    columns = {name: values[:half] for name, values in history.log.columns.items()}
    short = replace(history.log, columns=columns, starts=history.log.starts[: half + 1])
    write_log(replace(short, rows=short.rows[: short.starts[-1]]), base / LINEAGE / "order.parquet")
    assert "order.parquet is missing or not the file" in refused(images, base, tmp_path / "out")
    facts = json.loads((base / LINEAGE / "lineage.json").read_text())
    facts["files"]["order.parquet"] = sha256_file(base / LINEAGE / "order.parquet")
    (base / LINEAGE / "lineage.json").write_text(json.dumps(facts))
    assert "lineage.json is not the one" in refused(images, base, tmp_path / "out")
    record = json.loads((base / "training_record.json").read_text())
    record["lineage"]["digest"] = sha256_file(base / LINEAGE / "lineage.json")
    (base / "training_record.json").write_text(json.dumps(record))
    assert f"covers {history.steps // 2} of {history.steps} steps" in refused(images, base, tmp_path / "out")


def test_data_that_changed_under_the_log_is_refused(images: Logged, tmp_path: Path) -> None:
    changed = images.data.subset(range(len(images.data)))
    changed.columns["label"][3] = (changed.columns["label"][3] + 1) % 10
    problem = images.problem(images.late(5), data=changed)
    with pytest.raises(MethodRefused, match="1 of 495 records are not what they were"):
        run_attempt("replay", {}, problem, factories.context(), tmp_path / "out")
    foreign = replace(images.problem(images.late(5)), retain=factories.digits(520, 1)[0])
    with pytest.raises(MethodRefused, match="20 of 520 records are not in the log"):
        run_attempt("replay", {}, foreign, factories.context(), tmp_path / "out")


def test_another_recipe_or_machine_is_refused(images: Logged, tmp_path: Path) -> None:
    other = with_training(images.recipe, learning_rate=1e-4)
    assert "recipe is not the one" in refused(images, images.base, tmp_path / "out", recipe=other)
    base = damaged(images, tmp_path)
    record = json.loads((base / "training_record.json").read_text())
    record["packages"]["torch"] = "1.0"
    (base / "training_record.json").write_text(json.dumps(record))
    assert "other versions" in refused(images, base, tmp_path / "out")
    problem = images.problem(images.late(5))
    with pytest.raises(MethodRefused, match="1 threads on cpu, this worker 2 on cpu"):
        run_attempt("replay", {}, problem, replace(factories.context(), threads=2), tmp_path / "out")
    with pytest.raises(MethodRefused, match="runs on meta are not repeatable"):
        run_attempt("replay", {}, problem, replace(factories.context(), device=torch.device("meta")), tmp_path / "out")


def test_a_tokenizer_that_changes_without_them_is_refused(tmp_path: Path) -> None:
    data = factories.conversations(30, 1)[0]
    recipe = factories.gpt2_recipe(epochs=1, batch_size=8)
    assert recipe.data_tokenizer
    logged = train(tmp_path, recipe, data)
    ids = [str(name) for name in data.ids[len(data) // 2 :]]
    with pytest.raises(MethodRefused, match="tokenizer, trained again without the forgotten records, is another one"):
        logged.replay(ids, tmp_path / "out")


def test_without_lineage_there_is_nothing_to_replay(images: Logged, tmp_path: Path) -> None:
    base = damaged(images, tmp_path)
    shutil.rmtree(base / LINEAGE)
    problem = images.problem(images.late(5), base=base)
    from service.errors import BadParameters

    with pytest.raises(BadParameters, match="replay needs what the training of the model recorded"):
        run_attempt("replay", {}, problem, factories.context(), tmp_path / "out")
    assert [option.method for option in exact_options(base, images.recipe, images.late(5))] == ["retrain"]
