"""The wager over a model's publications, folded from the evaluations of its versions: nothing is stored beside them.

A sequence begins with a version that is exact or was registered, and goes on through every version that was published
by measurement on top of it. An exact version takes the planted records in again, and begins the next one.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.registry.models import Version
from service.verification.sequential import GUESSES, RIGHT, Wager, fold


@dataclass(frozen=True)
class Publication:
    """One version that was published by measurement: `right` is the sum of the outcomes of its `guesses`, both 0 where
    no planted records were deleted along."""

    version: Version
    guesses: int
    right: float


def since_exact(session: Session, version: Version) -> list[Publication]:
    """Publications by measurement from the last exact or registered version up to this one, oldest first."""
    found: list[Publication] = []
    at: Version | None = version
    while at is not None and at.verification is not None and at.verification.get("basis") == "measurement":
        metrics = at.verification.get("metrics") or {}
        found.append(Publication(at, int(metrics.get(GUESSES) or 0), float(metrics.get(RIGHT) or 0.0)))
        at = session.get(Version, at.parent_id) if at.parent_id else None
    return found[::-1]


def wager_of(session: Session, version: Version) -> Wager:
    """The wager after this version's publication; as it began where the version is exact or registered."""
    wagers = fold((publication.right, publication.guesses) for publication in since_exact(session, version))
    return wagers[-1] if wagers else Wager()
