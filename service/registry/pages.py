"""Cursor pages over tables that have `created_at` and `id`, newest first."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from service.database import decode_cursor, encode_cursor
from service.errors import Invalid


class Page:
    """Query parameters of a list; use as `Annotated[Page, Depends()]`."""

    def __init__(
        self,
        cursor: Annotated[str | None, Query(max_length=300, description="`next_cursor` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> None:
        self.cursor, self.limit = cursor, limit


def rows_of(session: Session, query: Select[Any], table: Any, page: Page) -> tuple[list[Any], str | None]:
    """The rows of a page, and the cursor of the next one or None."""
    if page.cursor:
        created_at, row_id = decode_cursor(page.cursor, str, str)
        query = query.where(tuple_(table.created_at, table.id) < tuple_(_moment(created_at), row_id))
    query = query.order_by(table.created_at.desc(), table.id.desc()).limit(page.limit + 1)
    rows = list(session.scalars(query))
    if len(rows) <= page.limit:
        return rows, None
    last = rows[page.limit - 1]
    return rows[: page.limit], encode_cursor(last.created_at.isoformat(), last.id)


def page_of(
    session: Session, query: Select[Any], table: Any, page: Page, view: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """The list object of the API: items, next_cursor, limit."""
    rows, following = rows_of(session, query, table, page)
    return {"items": [view(row) for row in rows], "next_cursor": following, "limit": page.limit}


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            "cursor is not one that this service gave out; start again without it", pointer="/cursor"
        ) from None
