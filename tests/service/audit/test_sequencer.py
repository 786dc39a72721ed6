"""Sealing events into the chain."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from service.audit import sequencer, service
from service.audit.models import AuditEvent
from service.database import reading, transaction


def _write(count: int, ref: str = "req_1") -> None:
    with transaction() as session:
        for number in range(count):
            service.record(session, "test.event", actor="test", ref=ref, data={"number": number, "ratio": 0.1})


def _sealed() -> list[dict[str, object]]:
    with reading() as session:
        return service.sealed_events(session, 0, 10_000)


def test_events_are_sealed_once_and_in_a_chain(database_url: str) -> None:
    assert sequencer.seal() == 0
    _write(3)
    assert sequencer.seal() == 3
    _write(2)
    assert sequencer.seal() == 2
    assert sequencer.seal() == 0
    events = _sealed()
    assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5]
    with reading() as session:
        head = service.checkpoint(session)
    assert head["size"] == 5
    assert service.verify_chain(events) == (head["chain_hash"], None)


def test_the_hashes_are_those_of_the_definition(database_url: str) -> None:
    import hashlib

    _write(1)
    sequencer.seal()
    event = _sealed()[0]
    text = (
        f'{{"actor":"test","at":"{event["at"]}","data":{{"number":0,"ratio":0.1}},'
        f'"id":"{event["id"]}","kind":"test.event","ref":"req_1"}}'
    )
    leaf = hashlib.sha256(b"\0" + text.encode()).digest()
    assert event["leaf_hash"] == leaf.hex()
    empty = hashlib.sha256(b"").digest()
    assert event["chain_hash"] == hashlib.sha256(empty + leaf).hexdigest()


def test_sequencers_that_run_at_once_seal_every_event_once(database_url: str) -> None:
    def work(number: int) -> int:
        _write(5, f"req_{number}")
        return sequencer.seal()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    sequencer.seal()
    events = _sealed()
    assert [event["sequence"] for event in events] == list(range(1, 61))
    assert service.verify_chain(events)[1] is None


@pytest.mark.parametrize("change", [{"data": {"number": 7}}, {"kind": "other"}, {"actor": "someone"}])
def test_a_changed_event_is_found(database_url: str, change: dict[str, object]) -> None:
    _write(3)
    sequencer.seal()
    with transaction() as session:
        session.execute(update(AuditEvent).where(AuditEvent.sequence == 2).values(**change))
    events = _sealed()
    good, complaint = service.verify_chain(events)
    assert complaint is not None
    assert str(events[1]["id"]) in complaint
    assert good == events[0]["chain_hash"]


def test_a_missing_event_is_found(database_url: str) -> None:
    _write(3)
    sequencer.seal()
    events = _sealed()
    complaint = service.verify_chain([events[0], events[2]])[1]
    assert complaint is not None
    assert "where 2 should be" in complaint


def test_what_cannot_be_hashed_is_refused_when_it_is_written(database_url: str) -> None:
    for data in ({"x": float("nan")}, {"x": 2**60}):
        with pytest.raises(ValueError, match=r"."), transaction() as session:
            service.record(session, "test.event", actor="test", ref="x", data=data)
    assert sequencer.seal() == 0
