"""Runs on a model that holds canaries: what the shared retrain has not seen, and what canaries are compared with."""

from pathlib import Path

import numpy as np
import pytest

from service.catalogue.methods import find_method
from service.errors import Cancelled, DiskFull, JobError
from service.verification.policy import Policy
from tests.workers import factories
from workers.lineage.prepare import prepare
from workers.modeling.fresh import Provenance
from workers.modeling.records import split_held_out
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures
from workers.planning.parameters import full_params
from workers.planning.problems import Line, open_line
from workers.qualification import runs
from workers.qualification.designs import Job
from workers.qualification.runs import Setting, finished, read_run, run_pack
from workers.qualification.sources import sources_of
from workers.references.layout import read_table

DATA, HELD_OUT = "d1" * 32, "e2" * 32
TINY = factories.RESNET | {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A model trained for one pass on 1,460 images with 73 canaries among them."""
    from dataclasses import replace

    data, held_out = factories.digits(1460, 300)
    recipe = factories.resnet_recipe(epochs=1, batch_size=64)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"config": TINY})})
    prepared = prepare(recipe, data, True, b"k" * 32)
    directory = tmp_path_factory.mktemp("base") / "model"
    context = replace(factories.context(), recorder=prepared.recorder)
    train_by_recipe(recipe, prepared.records, directory, 0, context, Provenance(DATA, HELD_OUT))
    return open_line(directory, "image-classification", data, held_out, HELD_OUT)


def setting_of(line: Line, work: Path, method: str = "negative_gradient_plus", companions: int = 10) -> Setting:
    from workers.modeling.training_record import read_record

    record = read_record(line.base_dir)
    assert record is not None
    assert record.recipe is not None
    spec = find_method(method)
    params = {"passes": 1, "min_steps": 1} if spec.kind == "approximate" else {}
    policy = Policy.model_validate({"verification": {"companions": companions}})
    return Setting(spec, full_params(spec, params), policy, record.recipe, DATA, {}, 0, work)


def test_designs_find_what_they_draw_from(line: Line) -> None:
    sources, notes = sources_of(line, [1, 10], None)
    assert line.canaries is not None
    assert {source.design: len(source.ids) for source in sources} == {
        "random": 1460, "memorised": 1460, "canary": len(line.canaries.unspent),
    }  # fmt: skip
    assert notes == []
    events = open_events(line)
    hard = next(source for source in sources if source.design == "memorised").pool(10)
    assert len(hard) == 73
    assert max(events[name] for name in hard) <= min(value for name, value in events.items() if name not in hard)


def open_events(line: Line) -> dict[str, float]:
    from workers.lineage.store import open_history

    history = open_history(line.base_dir)
    assert history is not None
    records, people = history.records, set(line.people.ids.tolist())
    confidence = records.events[:, 0].tolist()
    return {name: value for name, value in zip(records.ids.tolist(), confidence, strict=True) if name in people}


def test_one_retrain_serves_people_and_canaries_and_has_seen_neither(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert line.canaries is not None
    assert line.held_out is not None
    setting = setting_of(line, tmp_path)
    planted = line.canaries.unspent.ids[:7].tolist()
    people = Job("random", 5, 0, tuple(line.people.ids[:5].tolist()))
    canaries = Job("canary", 7, 0, tuple(planted))
    seen: dict[str, set[str]] = {}
    kept = runs.shutil.rmtree

    def looked(path: Path, **options: bool) -> None:
        if (path / "training_records.parquet").is_file():
            seen[path.name] = set(read_exposures(path)["record_id"].to_pylist())
        kept(path, **options)

    monkeypatch.setattr(runs.shutil, "rmtree", looked)
    run_pack(setting, line, "base-000", [people, canaries], factories.context())
    retrained = seen["retrained-base-000"]
    spent = runs.chosen_companions(line.canaries, 10)
    assert not retrained & {*people.ids, *planted, *spent}
    assert len(retrained) == 1460 + len(line.canaries.unspent) - 5 - len({*planted, *spent})
    # A simulated deletion of people takes canaries along, one of canaries takes these alone.
    assert not seen["candidate-random-5-000"] & {*people.ids}
    assert set(planted) & seen["candidate-canary-7-000"] == set()
    assert all(finished(setting, job) for job in (people, canaries))
    for job, others in ((people, line.held_out), (canaries, line.canaries.outside)):
        table = read_table(tmp_path / "runs" / f"{job.name}.arrow")
        rows = {part: table.filter(runs.pc.equal(table["set"], part)) for part in ("forget", "held_out", "retain")}
        assert rows["forget"].num_rows == job.size
        digest = HELD_OUT if job is people else line.canaries.commitment
        unseen = split_held_out(others, runs.held_out_key(digest))[1]
        assert sorted(rows["held_out"]["subject_id"].to_pylist()) == sorted(unseen.subjects.tolist())
        assert np.isfinite(rows["held_out"]["candidate_int4"].to_numpy()).all()
        assert "record_id" not in table.column_names
    assert read_run(setting, people)["retrained"] in ("inconclusive", "pass")


def test_a_method_that_breaks_is_a_result_and_not_a_crash(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[JobError] = [Cancelled("cancelled"), DiskFull("no space"), JobError("the weights are not finite")]

    def breaking(*_: object) -> None:
        raise ends.pop(0)

    setting = setting_of(line, tmp_path)
    job = Job("random", 1, 0, tuple(line.people.ids[:1].tolist()))
    monkeypatch.setattr(runs, "run_attempt", breaking)
    for interruption in (Cancelled, DiskFull):
        with pytest.raises(interruption):
            run_pack(setting, line, "base-000", [job], factories.context())
        assert not finished(setting, job)
    run_pack(setting, line, "base-000", [job], factories.context())
    assert read_run(setting, job) == {"broken": "the weights are not finite"}
    assert not list(tmp_path.glob("retrained-*"))
