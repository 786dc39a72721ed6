"""Registering a model: everything is checked and copied first, then one transaction makes it visible."""

import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.catalogue.lineage import CANARY_PREFIX
from service.catalogue.precisions import FULL, Precision, check_precision
from service.catalogue.recipes import Recipe
from service.database import clock, new_id, reading, transaction
from service.datasets import service as datasets
from service.datasets.columns import Columns
from service.datasets.models import Dataset
from service.datasets.records import known_ids, read_record_ids
from service.errors import BadDataset, BadModel, BadParameters, Conflict
from service.registry import placement, pools, repository
from service.registry.directories import RECORD_IDS, ModelFacts, check_labels, check_model
from service.registry.judged import holds, refuse_unjudged, weights_of
from service.registry.manifests import describe_version
from service.registry.models import Model, Version
from service.registry.recipes import read_recipe, recipe_of
from service.verification.policy import Policy, load_policy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class _Bundle:
    """All that has been read and checked, before any row is written."""

    name: str
    task: str
    facts: ModelFacts
    dataset: datasets.PreparedDataset
    recipe: dict[str, Any] | None
    policy: Policy | None
    precision: Precision | None
    weights: placement.Incoming
    manifest: dict[str, Any]
    forgotten: int
    actor: str


def register_model(
    name: str,
    path: Path,
    task: str,
    data: Path,
    holdout: Path | None = None,
    recipe: Path | None = None,
    policy: Path | None = None,
    columns: dict[str, str] | None = None,
    identifiers: dict[str, str] | None = None,
    actor: str = "local",
    serve_precision: str | None = None,
) -> Version:
    """Register version 1 of a model, or add a version made elsewhere; answers the version that serves now.

    The directory is copied to a content-addressed place. A directory that serves already only updates data, recipe,
    policy and `serve_precision`: what weights are rounded to for serving (None: as before, at first "fp32"). Raises
    BadParameters, BadModel, BadDataset, BadRecipe, BadPolicy, or Conflict; nothing is written then.
    """
    _check_name(name)
    Columns.for_task(task)  # an unknown task is refused before anything is read
    facts = check_model(path, task)
    precision = check_precision(serve_precision) if serve_precision is not None else None
    chosen_policy = load_policy(policy) if policy is not None else None
    chosen_recipe = read_recipe(recipe, task) if recipe is not None else None
    prepared = datasets.prepare(task, data, holdout, columns or {}, identifiers or {}, _labels_of_line(name, facts))
    try:
        check_labels(path, facts, prepared.facts.num_labels)
        forgotten = _check_provenance(name, path, prepared)
        with placement.incoming(name, path) as weights:
            bundle = _Bundle(
                name=name,
                task=task,
                facts=facts,
                dataset=prepared,
                recipe=chosen_recipe,
                policy=chosen_policy,
                precision=precision,
                weights=weights,
                manifest=describe_version(weights.draft, weights.listed),
                forgotten=forgotten,
                actor=actor,
            )
            return _store(bundle)
    except IntegrityError as error:
        _discard(prepared.index_path.parent)
        raise Conflict(f"model {name!r} was registered by someone else at the same moment; try again") from error
    except BaseException:
        _discard(prepared.index_path.parent)
        raise


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadParameters(f"model name {name[:40]!r}: use letters, digits, dot, dash and underscore, 100 at most")


def _labels_of_line(name: str, facts: ModelFacts) -> int | None:
    """How many labels the data of a registered line may hold, by config.json; None for a new line: its data says it.

    A deletion can take the last records of the top label out of the training data. The model keeps that label, and so
    may its held-out set.
    """
    with reading() as session:
        return facts.num_labels if repository.find_model(session, name) is not None else None


def _check_provenance(name: str, path: Path, prepared: datasets.PreparedDataset) -> int:
    """The data must cover what the model was trained on, and neither may hold what was to be forgotten.

    Answers how many records the model has been made to forget so far.
    """
    column = prepared.facts.columns["record_id"]
    with reading() as session:
        model = repository.find_model(session, name)
        forgotten = datasets.tombstones(session, model.id) if model is not None else set()
    held = datasets.forgotten_in(prepared.path, column, forgotten)
    if held:
        raise BadDataset(f"{prepared.path}: holds {held} records that {name!r} was made to forget; remove them")
    record = path / RECORD_IDS
    if not record.is_file():
        return len(forgotten)
    seen = {record_id for ids in read_record_ids(record) for record_id in ids}
    # Canaries are the service's own and in no data set.
    trained = {record_id for record_id in seen if not record_id.startswith(CANARY_PREFIX)}
    if trained & forgotten:
        count = len(trained & forgotten)
        raise BadModel(f"{record}: lists {count} records that {name!r} was made to forget; train without them")
    missing = len(trained) - len(known_ids(prepared.path, column, trained))
    if missing:
        raise BadDataset(
            f"{prepared.path}: lacks {missing} records that {record} lists; give the data it was trained on"
        )
    return len(forgotten)


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _store(bundle: _Bundle) -> Version:
    with transaction() as session:
        now = clock(session)
        model = repository.find_model(session, bundle.name, held=True)
        if model is None:
            return _store_first(session, bundle, now)
        return _store_further(session, model, bundle, now)


def _store_first(session: Session, bundle: _Bundle, now: datetime) -> Version:
    refuse_unjudged(session, bundle.manifest, bundle.precision or FULL)
    dataset = datasets.store(session, bundle.dataset, now)
    policy = bundle.policy or Policy()
    model = Model(
        id=new_id("mod"),
        name=bundle.name,
        task=bundle.task,
        dataset_id=dataset.id,
        recipe=bundle.recipe,
        policy=policy.model_dump(mode="json"),
        policy_digest=policy.digest(),
        serve_precision=bundle.precision or FULL,
        created_at=now,
    )
    session.add(model)
    session.flush()
    return _serve(session, model, dataset, bundle, now)


def _store_further(session: Session, model: Model, bundle: _Bundle, now: datetime) -> Version:
    if model.task != bundle.task:
        raise BadModel(f"model {model.name!r} is registered for {model.task}, not {bundle.task}")
    serving = repository.serving_version(session, model)
    if len(datasets.tombstones(session, model.id)) != bundle.forgotten:
        raise Conflict(f"model {model.name!r} has forgotten further records meanwhile; try again")
    _refuse_retired(session, model, bundle.manifest, serving)
    refuse_unjudged(session, bundle.manifest, bundle.precision or model.serve_precision)
    recipe, dataset = recipe_of(model, serving), session.get_one(Dataset, model.dataset_id)
    if datasets.is_same(dataset, bundle.dataset):
        _discard(bundle.dataset.index_path.parent)
    else:
        dataset = datasets.store(session, bundle.dataset, now)
    replaced = dataset.id != model.dataset_id
    model.dataset_id = dataset.id
    if bundle.recipe is not None or bundle.facts.training_record is not None:
        model.recipe = bundle.recipe
    if bundle.policy is not None:
        model.policy, model.policy_digest = bundle.policy.model_dump(mode="json"), bundle.policy.digest()
    model.serve_precision = bundle.precision or model.serve_precision
    session.flush()
    if serving.digest == bundle.weights.digest:
        _land(session, bundle)
        data = {"dataset": dataset.digest, "policy": model.policy_digest, "serve_precision": model.serve_precision}
        audit.record(session, "model.updated", actor=bundle.actor, ref=model.id, data=data)
        _end_references(session, model, replaced, recipe, serving, bundle.actor, now)
        return serving
    version = _serve(session, model, dataset, bundle, now, parent=serving)
    # Deletions are resolved in the new data from now on, so nothing trained on the old may be served again.
    end = now + Policy.model_validate(model.policy).retention.destroy_retired_after_timedelta if replaced else None
    repository.retire(session, serving.id, now, end)
    if end is not None:
        repository.condemn_retired(session, model.id, end)
    _end_references(session, model, replaced, recipe, version, bundle.actor, now)
    return version


def _end_references(
    session: Session, model: Model, replaced: bool, recipe: Recipe | None, version: Version, actor: str, now: datetime
) -> None:
    """References are comparable with a model on the same data and by the same recipe; another one needs its own."""
    if replaced:
        pools.end_pool(session, model, now, actor=actor, why="other data was registered")
    elif recipe_of(model, version) != recipe:
        pools.end_pool(session, model, now, actor=actor, why="the model has another recipe")


def _refuse_retired(session: Session, model: Model, manifest: dict[str, Any], serving: Version) -> None:
    """Known by its weights: a file added to the directory makes no other model of it."""
    weights = weights_of(manifest)
    if weights == weights_of(serving.manifest):
        return
    query = select(Version).where(Version.model_id == model.id, Version.destroy_by.is_not(None))
    for version in session.scalars(query):
        if holds(weights, weights_of(version.manifest)):
            raise Conflict(
                f"this directory is version {version.number} of {model.name!r}, which a deletion has retired"
            )


def _land(session: Session, bundle: _Bundle) -> None:
    placement.land(session, bundle.weights.row_id, bundle.weights.draft, bundle.weights.home)


def _serve(
    session: Session, model: Model, dataset: Dataset, bundle: _Bundle, now: datetime, parent: Version | None = None
) -> Version:
    version_id = new_id("ver")
    _land(session, bundle)
    repository.move_pointer(session, model.id, parent.id if parent else None, version_id)
    version = Version(
        id=version_id,
        model_id=model.id,
        number=repository.next_number(session, model.id),
        parent_id=parent.id if parent else None,
        digest=bundle.weights.digest,
        path=str(bundle.weights.home),
        state="serving",
        manifest=bundle.manifest,
        created_at=now,
        published_at=now,
    )
    session.add(version)
    session.flush()
    repository.track_lineage(session, version, now)
    data = {"model": model.id, "number": version.number, "digest": bundle.weights.digest, "dataset": dataset.digest}
    data |= {"records": dataset.records, "policy": model.policy_digest, "serve_precision": model.serve_precision}
    audit.record(session, "version.registered", actor=bundle.actor, ref=version_id, data=data)
    return version
