"""Registered datasets and tombstones."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, UtcDateTime


class Dataset(Base):
    """A training set with its optional held-out set, as files; `index_path` is the subject index made at registration.

    `columns` maps roles to column names; `identifiers` maps identifier types to column names.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    task: Mapped[str] = mapped_column(String(40))
    path: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    holdout_path: Mapped[str | None] = mapped_column(Text)
    holdout_digest: Mapped[str | None] = mapped_column(String(64))
    columns: Mapped[dict[str, str]] = mapped_column(JSON)
    identifiers: Mapped[dict[str, str]] = mapped_column(JSON)
    index_path: Mapped[str] = mapped_column(Text)
    records: Mapped[int] = mapped_column(Integer)
    subjects: Mapped[int] = mapped_column(Integer)
    holdout_records: Mapped[int] = mapped_column(Integer, default=0)
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Tombstone(Base):
    """A record id that no later training of this model may see; written in the transaction that publishes."""

    __tablename__ = "tombstones"
    __table_args__ = (Index("ix_tombstones_model_record", "model_id", "record_id", unique=True),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    record_id: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
