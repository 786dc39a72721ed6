"""Clocks against dates counted by hand."""

from datetime import UTC, datetime

import pytest

from service.deletion.regulations import REGULATIONS, Span, find_regulation
from service.deletion.schemas import days_left
from service.errors import UnknownRegulation


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(hour=13, minute=5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("regulation", "received", "due", "extended"),
    [
        ("gdpr", "2026-01-15", "2026-02-15", "2026-04-15"),
        ("gdpr", "2026-01-31", "2026-02-28", "2026-04-30"),
        ("gdpr", "2028-01-31", "2028-02-29", "2028-04-30"),
        ("gdpr", "2026-12-31", "2027-01-31", "2027-03-31"),
        ("gdpr", "2026-11-30", "2026-12-30", "2027-02-28"),
        ("ccpa", "2026-01-31", "2026-03-17", "2026-05-01"),
        ("ccpa", "2026-11-21", "2027-01-05", "2027-02-19"),
    ],
)
def test_due_dates(regulation: str, received: str, due: str, extended: str) -> None:
    clock = REGULATIONS[regulation]
    assert clock.due_at(_day(received)) == _day(due)
    assert clock.extended_due_at(_day(received)) == _day(extended)


def test_months_carry_into_years() -> None:
    assert Span(months=14).after(_day("2026-12-31")) == _day("2028-02-29")
    assert Span(months=12, days=1).after(_day("2026-02-28")) == _day("2027-03-01")


def test_an_unknown_regulation_is_told_without_quoting_it() -> None:
    with pytest.raises(UnknownRegulation, match="known ones are gdpr, ccpa") as caught:
        find_regulation("jane@example.org")
    assert "jane" not in caught.value.detail


def test_days_left_counts_calendar_days() -> None:
    due = _day("2026-02-15")
    assert days_left(due, _day("2026-01-15")) == 31
    assert days_left(due, due.replace(hour=0)) == days_left(due, due.replace(hour=23)) == 0
    assert days_left(due, _day("2026-02-17")) == -2
