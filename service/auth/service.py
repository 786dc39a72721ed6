"""API keys: making, revoking and verifying them.

A key is `lethe_<id>_<secret>`; the secret has 256 bits of entropy, so that its plain SHA-256 is a safe digest. A
verified key is remembered by this process for `REMEMBER_SECONDS`: intake then costs no statement for it, and a
revocation takes effect within that time everywhere.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.auth.models import ApiKey
from service.database import clock, new_id, reading
from service.errors import BadParameters, KeyExpired, NotFound, Unauthorized

ROLES = ("submitter", "reviewer", "auditor", "operator", "admin")
READS_ALL = frozenset({"reviewer", "auditor", "operator", "admin"})
REMEMBER_SECONDS = 1.0

_PREFIX = "lethe_"
_MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class Principal:
    """Who calls: the key's id and its roles. `admin` may do everything."""

    id: str
    roles: frozenset[str]
    expires_at: datetime | None = None

    def has(self, roles: Collection[str]) -> bool:
        """Whether any of these roles, or admin, is held."""
        return "admin" in self.roles or not self.roles.isdisjoint(roles)

    @property
    def reads_all(self) -> bool:
        """Whether the key may see requests that others have submitted."""
        return not self.roles.isdisjoint(READS_ALL)


def create_key(
    session: Session, name: str, roles: Collection[str], valid_for: timedelta | None = None
) -> tuple[ApiKey, str]:
    """A new key and its text, which cannot be shown again. Raises BadParameters for unknown or no roles."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        what = f"unknown role {unknown[0]!r}" if unknown else "a key needs a role"
        raise BadParameters(f"{what}; roles are {', '.join(ROLES)}")
    if not name.strip() or len(name) > 200:
        raise BadParameters("the name of a key has 1 to 200 characters")
    now, secret = clock(session), secrets.token_hex(32)
    key = ApiKey(
        id=new_id("key"),
        name=name,
        roles=[role for role in ROLES if role in roles],
        digest=_digest(secret),
        created_at=now,
        expires_at=now + valid_for if valid_for is not None else None,
    )
    session.add(key)
    session.flush()
    return key, f"{_PREFIX}{key.id}_{secret}"


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """Make a key useless from now on; revoking twice changes nothing. Raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id}; `lethe keys list` shows them")
    key.revoked_at = key.revoked_at or clock(session)
    return key


def list_keys(session: Session) -> list[ApiKey]:
    """All keys, oldest first, revoked and expired ones too."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def verify(text: str) -> Principal:
    """The principal of a key's text, from the database. Raises Unauthorized or KeyExpired."""
    key_id, _, secret = text.removeprefix(_PREFIX).rpartition("_")
    if not text.startswith(_PREFIX) or not key_id or not text.isascii():
        raise Unauthorized("the Authorization header holds no Lethe key; send `Authorization: Bearer lethe_...`")
    with reading() as session:
        key = session.get(ApiKey, key_id[:40])
        now = clock(session)
    # Compared even when there is no such key, so that the time taken does not tell which ids exist.
    matches = hmac.compare_digest(_digest(secret), key.digest if key is not None else "0" * 64)
    if key is None or not matches or key.revoked_at is not None:
        raise Unauthorized("the API key is unknown or revoked; make one with `lethe keys create`")
    principal = Principal(key.id, frozenset(key.roles), key.expires_at)
    _refuse_expired(principal, now)
    return principal


class Remembered:
    """Verified keys of the last moment, by a digest of their text."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._lock = threading.Lock()

    def find(self, text: str) -> Principal | None:
        """The principal if the key was verified less than `REMEMBER_SECONDS` ago. Raises KeyExpired."""
        found = self._known.get(_fingerprint(text))
        if found is None or found[1] < time.monotonic():
            return None
        _refuse_expired(found[0], datetime.now(UTC))
        return found[0]

    def keep(self, text: str, principal: Principal) -> None:
        """Remember a key that `verify` has just accepted."""
        with self._lock:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[_fingerprint(text)] = (principal, time.monotonic() + REMEMBER_SECONDS)


def _refuse_expired(principal: Principal, now: datetime) -> None:
    if principal.expires_at is not None and principal.expires_at <= now:
        raise KeyExpired("the API key has expired; ask an admin for a new one")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _fingerprint(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
