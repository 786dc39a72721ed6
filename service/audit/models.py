"""Audit events: written with the state change they record, sealed into the chain afterwards."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, UtcDateTime


class AuditEvent(Base):
    """One event. `sequence`, `leaf_hash` and `chain_hash` are null until the sequencer has sealed it.

    `ref` names what the event is about (a request, job, version, key ... id); `data` holds digests, counts and
    codes, never an identifier of a person.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_ref", "ref"),
        Index("ix_audit_events_sequence", "sequence", unique=True),
        Index("ix_audit_events_unsealed", "id", postgresql_where="sequence IS NULL", sqlite_where="sequence IS NULL"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(60))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(80))
    ref: Mapped[str] = mapped_column(String(80))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    sequence: Mapped[int | None] = mapped_column(BigInteger().with_variant(Integer, "sqlite"))
    leaf_hash: Mapped[str | None] = mapped_column(String(64))
    chain_hash: Mapped[str | None] = mapped_column(String(64))


class AuditHead(Base):
    """The one row that sequencers compete for: whoever moves `size` from the value it read has sealed that range."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    chain_hash: Mapped[str] = mapped_column(String(64))
