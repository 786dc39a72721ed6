"""The wager over a model's publications, folded from its versions: where it begins, what it counts."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.database import clock, new_id, transaction
from service.registry.models import Version
from service.registry.sequence import since_exact, wager_of
from service.verification.sequential import Wager
from tests.service.factories import register_images


def measured(right: float | None = None, guesses: int = 73) -> dict[str, Any]:
    """The evaluation of a version that was published by measurement."""
    counted = {} if right is None else {"canary_guesses": guesses, "canary_guesses_right": right}
    return {"basis": "measurement", "metrics": counted}


EXACT: dict[str, Any] = {"basis": "procedure", "metrics": {"canary_guesses": 73, "canary_guesses_right": 73.0}}


def grown(session: Session, base: Version, *verifications: dict[str, Any]) -> list[Version]:
    """Versions one on top of the other."""
    made, parent = [], base
    for verification in verifications:
        version = Version(
            id=new_id("ver"), model_id=base.model_id, number=parent.number + 1, parent_id=parent.id,
            digest=f"{parent.number + 1:064d}", path="", state="retired", manifest={}, verification=verification,
            created_at=clock(session),
        )  # fmt: skip
        session.add(version)
        session.flush()
        made.append(version)
        parent = version
    return made


@pytest.fixture
def base(database_url: str, tmp_path: Path) -> Version:
    return register_images(tmp_path)


def test_publications_add_up_since_the_registered_version(base: Version) -> None:
    with transaction() as session:
        assert wager_of(session, base) == Wager()
        versions = grown(session, base, measured(40.0), measured(), measured(36.5))
        told = [(one.version.number, one.guesses, one.right) for one in since_exact(session, versions[-1])]
        assert told == [(2, 73, 40.0), (3, 0, 0.0), (4, 73, 36.5)]
        wager = wager_of(session, versions[-1])
        assert (wager.count, wager.total) == (146, 76.5)
        assert not wager.alarm()
        assert wager == Wager().plus(40.0, 73).plus(36.5, 73)


def test_an_exact_version_ends_an_alarm_and_begins_the_next_sequence(base: Version) -> None:
    with transaction() as session:
        versions = grown(session, base, measured(73.0), measured(36.0), EXACT, measured(37.0))
        # It stays on, whatever comes later, until a version is exact.
        assert [wager_of(session, version).alarm() for version in versions] == [True, True, False, False]
        assert wager_of(session, versions[2]) == Wager()
        assert wager_of(session, versions[3]) == Wager().plus(37.0, 73)
