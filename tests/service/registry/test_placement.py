"""Weights that were placed and never published are destroyed, and what serves never is."""

from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select, text

from service.audit.models import AuditEvent
from service.database import clock, reading, transaction
from service.errors import Conflict
from service.registry import files, placement, service
from service.registry.models import Artefact, Model, Version
from tests.dying import die_before_commit
from tests.service.factories import IDENTIFIERS, image_model, image_rows, register_images, write_parquet

REGISTER = f"""
from service.registry.service import register_model
register_model("digits", Path(sys.argv[3]), "image-classification", Path(sys.argv[2]), identifiers={IDENTIFIERS})
"""
DAY = timedelta(days=1, minutes=1)


def _now() -> datetime:
    with reading() as session:
        return clock(session)


def _rows(table: Any) -> list[Any]:
    with reading() as session:
        return list(session.scalars(select(table)))


def _folders(home: Path) -> set[str]:
    models = home / "models" / "digits"
    return {path.name for path in models.iterdir()} if models.is_dir() else set()


def _destroyed() -> list[dict[str, Any]]:
    return [event.data for event in _rows(AuditEvent) if event.kind == "artefact.destroyed"]


@pytest.mark.parametrize(("commit", "left"), [(2, ".incoming-"), (3, "")])
def test_weights_of_a_registration_that_died_are_destroyed(
    database_url: str, home: Path, tmp_path: Path, commit: int, left: str
) -> None:
    data, model = write_parquet(tmp_path / "d.parquet", image_rows()), image_model(tmp_path / "model")
    die_before_commit(commit, REGISTER, str(data), str(model))
    (folder,) = _folders(home)
    assert folder.startswith(left)
    assert _rows(Model) == _rows(Version) == []
    assert {Path(row.path).name for row in _rows(Artefact)} >= {folder}
    assert all(row.destroy_by is not None for row in _rows(Artefact))

    assert service.sweep_destroyed(_now()) == 0
    assert _folders(home) == {folder}
    assert service.sweep_destroyed(_now() + DAY) == 1
    assert _folders(home) == set()
    assert [(event["kind"], event["model"]) for event in _destroyed()] == [(placement.UNPUBLISHED, None)]
    assert service.sweep_destroyed(_now() + DAY) == 0


def test_a_digest_that_was_placed_in_vain_can_be_published_later(database_url: str, home: Path, tmp_path: Path) -> None:
    data, model = write_parquet(tmp_path / "d.parquet", image_rows()), image_model(tmp_path / "model")
    die_before_commit(3, REGISTER, str(data), str(model))
    version = register_images(tmp_path, data=data, path=model)
    assert _folders(home) == {version.digest}
    assert service.sweep_destroyed(_now() + DAY) == 0
    assert _folders(home) == {version.digest}
    assert _rows(Artefact) == []
    assert _destroyed() == []


def test_a_registration_that_succeeds_or_is_refused_leaves_no_row(
    database_url: str, home: Path, tmp_path: Path
) -> None:
    first = register_images(tmp_path)
    register_images(tmp_path)
    data = write_parquet(tmp_path / "new.parquet", image_rows(5))
    second = register_images(tmp_path, path=image_model(tmp_path / "new", fill=1), data=data)
    with pytest.raises(Conflict, match="which a deletion has retired"):
        register_images(tmp_path, data=data)
    assert _rows(Artefact) == []
    assert _folders(home) == {first.digest, second.digest}


REFUSE = {
    "sqlite": ["CREATE TRIGGER refuse BEFORE INSERT ON versions BEGIN SELECT RAISE(ABORT, 'no'); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE unique_violation; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER refuse BEFORE INSERT ON versions FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}


def test_what_was_placed_before_a_conflict_goes_with_the_next_sweep(
    database_url: str, home: Path, tmp_path: Path
) -> None:
    with transaction() as session:
        for statement in REFUSE[session.get_bind().dialect.name]:
            session.execute(text(statement))
    with pytest.raises(Conflict, match="registered by someone else"):
        register_images(tmp_path)
    (folder,) = _folders(home)
    assert service.sweep_destroyed(_now()) == 1
    assert _folders(home) == set()
    assert [event["digest"] for event in _destroyed()] == [folder]


def test_who_comes_after_the_sweeper_does_not_publish(database_url: str, home: Path, tmp_path: Path) -> None:
    """The last of the checks: a publication slower than its own announcement."""
    data = write_parquet(tmp_path / "d.parquet", image_rows())
    with placement.incoming("digits", image_model(tmp_path / "model")) as weights:
        with transaction() as session:
            files.place_directory(weights.draft, weights.home)
        assert service.sweep_destroyed(_now() + DAY) == 1
        with transaction() as session, pytest.raises(Conflict, match="within a day"):
            placement.land(session, weights.row_id, weights.draft, weights.home)
    assert _folders(home) == set()
    assert register_images(tmp_path, data=data).number == 1


def test_the_sweeper_waits_for_who_publishes(database_url: str, home: Path, tmp_path: Path) -> None:
    base = register_images(tmp_path)
    with placement.incoming("digits", image_model(tmp_path / "new", fill=1)) as weights:
        late = _now() + DAY  # so late that the announcement has run out at the very moment of publication
        sweeper = Thread(target=service.sweep_destroyed, args=(late,))
        with transaction() as session:
            placement.land(session, weights.row_id, weights.draft, weights.home)
            service.publish_version(
                session,
                job_id="job_1",
                model_id=base.model_id,
                base_version_id=base.id,
                digest=weights.digest,
                path=weights.home,
                method="retrain",
                verification={},
                destroy_after=timedelta(days=7),
                now=clock(session),
            )
            sweeper.start()
            sweeper.join(0.5)
            assert sweeper.is_alive()
        sweeper.join(30)
    assert _folders(home) == {base.digest, weights.digest}
    assert _destroyed() == []


def test_two_registrations_of_one_directory_share_it(database_url: str, home: Path, tmp_path: Path) -> None:
    model = image_model(tmp_path / "model")
    with placement.incoming("digits", model) as weights:
        first = register_images(tmp_path, path=model)
        with transaction() as session:
            placement.land(session, weights.row_id, weights.draft, weights.home)
    assert _folders(home) == {first.digest}
    assert service.sweep_destroyed(_now() + DAY) == 0
    assert _folders(home) == {first.digest}
    assert _rows(Artefact) == []


def test_the_last_of_two_versions_takes_their_directory_along(database_url: str, home: Path, tmp_path: Path) -> None:
    base = register_images(tmp_path)
    second = register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    register_images(tmp_path, path=Path(base.path))
    register_images(tmp_path, path=Path(second.path))
    now = _now()
    with transaction() as session:
        for version in session.scalars(select(Version).where(Version.digest == base.digest)):
            version.destroy_by = now
    assert service.sweep_destroyed(now) == 2
    assert _folders(home) == {second.digest}


def test_what_a_sweeper_left_half_deleted_is_deleted(database_url: str, home: Path, tmp_path: Path) -> None:
    base = register_images(tmp_path)
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    now = _now()
    with transaction() as session:
        session.get_one(Version, base.id).destroy_by = now
    assert files.set_aside(Path(base.path)) is not None  # and here it died
    assert len(_folders(home)) == 2
    assert service.sweep_destroyed(now) == 1
    assert len(_folders(home)) == 1
    assert [event["digest"] for event in _destroyed()] == [base.digest]
