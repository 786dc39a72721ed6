"""Units of work, identifiers, cursors, and inserts that go past SQLAlchemy's own."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import IntegrityError

from service import database
from service.audit.models import AuditEvent
from service.auth.models import ApiKey
from service.database import Insert, decode_cursor, encode_cursor, insert_all, new_id, reading, transaction
from service.errors import Invalid

NOW = datetime(2026, 11, 21, 12, 30, 15, 123000, tzinfo=UTC)
KEYS = Insert(ApiKey.__table__, "id", "name", "roles", "digest", "created_at", "expires_at", "revoked_at")


def _key(number: int) -> dict[str, object]:
    return {
        "id": f"key_{number}",
        "name": "née %s ?",
        "roles": ["a", "b"],
        "digest": "d",
        "created_at": NOW,
        "expires_at": None,
        "revoked_at": None,
    }


def test_inserted_rows_are_read_back_as_they_were(database_url: str) -> None:
    with transaction() as session:
        insert_all(session, (KEYS, [_key(1), _key(2)]), (KEYS, []), (KEYS, [_key(3)]))
    with reading() as session:
        rows = list(session.scalars(select(ApiKey).order_by(ApiKey.id)))
    assert [row.id for row in rows] == ["key_1", "key_2", "key_3"]
    assert (rows[0].name, rows[0].roles, rows[0].created_at, rows[0].expires_at) == ("née %s ?", ["a", "b"], NOW, None)


def test_very_many_rows_are_split(database_url: str) -> None:
    with transaction() as session:
        insert_all(session, (KEYS, [_key(number) for number in range(9000)]))
    with reading() as session:
        assert len(session.scalars(select(ApiKey.id)).all()) == 9000


def test_their_errors_are_sqlalchemys_and_quote_nothing(database_url: str) -> None:
    with pytest.raises(IntegrityError) as caught, transaction() as session:
        insert_all(session, (KEYS, [_key(1)]), (KEYS, [_key(1)]))
    assert "née" not in str(caught.value)
    with reading() as session:
        assert session.scalars(select(ApiKey.id)).all() == []


def test_a_transaction_is_all_or_nothing(database_url: str) -> None:
    def interrupted() -> None:
        with transaction() as session:
            insert_all(session, (KEYS, [_key(1)]))
            session.add(AuditEvent(id="evt_1", kind="k", at=NOW, actor="a", ref="r", data={}))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with reading() as session:
        assert session.scalars(select(ApiKey.id)).all() == []
        assert session.scalars(select(AuditEvent.id)).all() == []


def test_ids_of_one_process_grow() -> None:
    ids = [new_id("x") for _ in range(5000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5000
    assert {len(one) for one in ids} == {28}
    assert not set("".join(ids)) - set("x_0123456789abcdefghjkmnpqrstvwxyz")


def test_cursors_are_read_back_and_forgeries_refused() -> None:
    assert decode_cursor(encode_cursor("a", 7), str, int) == ["a", 7]
    for forged in ("", "!", "AAAA", encode_cursor("a"), encode_cursor(7, "a"), encode_cursor("a", 7) + "A", "é"):
        with pytest.raises(Invalid):
            decode_cursor(forged, str, int)


def test_threads_that_come_first_at_once_share_one_engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any, **options: Any) -> Engine:
        time.sleep(0.05)
        return create_engine(*arguments, **options)

    monkeypatch.setattr(database, "create_engine", slow)
    database.close()
    with ThreadPoolExecutor(6) as pool:
        engines = list(pool.map(lambda _: database.get_engine(), range(6)))
    assert len({id(engine) for engine in engines}) == 1
