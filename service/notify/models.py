"""The outbox: messages committed with the state change that causes them, sent afterwards."""

from datetime import datetime

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, UtcDateTime


class OutboxMessage(Base):
    """`topic` says who consumes it, `ref` is a row id, `attempts` counts tried deliveries. Done rows are deleted."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_not_before", "not_before"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    topic: Mapped[str] = mapped_column(String(60))
    ref: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
