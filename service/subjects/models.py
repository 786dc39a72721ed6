"""What stays of a person after erasure: keyed pseudonyms for the suppression list."""

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, UtcDateTime


class SuppressionEntry(Base):
    """`pseudonym` is HMAC-SHA256(master key, type NUL normalised value); the value itself is never stored here."""

    __tablename__ = "suppression_entries"
    __table_args__ = (Index("ix_suppression_entries_pseudonym", "pseudonym"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
