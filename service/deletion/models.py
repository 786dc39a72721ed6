"""Deletion requests, their targets, and remembered answers for Idempotency-Key."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.database import Base, UtcDateTime


class DeletionRequest(Base):
    """One request of one person.

    `sealed` holds identifiers and note, encrypted under the request's own key; `data_key` is that key, wrapped by the
    master key. Both become null at completion (crypto-shredding). `cancellable` turns false when a job's publish
    stage begins: it is the point of no return, decided by one conditional update.
    """

    __tablename__ = "deletion_requests"
    __table_args__ = (
        Index("ix_deletion_requests_created", "created_at", "id"),
        Index("ix_deletion_requests_status", "status", "due_at"),
        Index("ix_deletion_requests_external", "external_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    status: Mapped[str] = mapped_column(String(20))
    regulation: Mapped[str] = mapped_column(String(20))
    external_id: Mapped[str | None] = mapped_column(String(200))
    submitted_by: Mapped[str] = mapped_column(String(80))
    pseudonym: Mapped[str] = mapped_column(String(64))
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    data_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    callback_url: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    cancellable: Mapped[bool] = mapped_column(Boolean, default=True)
    stage: Mapped[str | None] = mapped_column(String(20))
    progress: Mapped[float] = mapped_column(default=0.0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    extended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    targets: Mapped[list["RequestTarget"]] = relationship(order_by="RequestTarget.model_name", viewonly=True)


class RequestTarget(Base):
    """A model that a request asks to forget. `outcome`: published, no_records, already_deleted, or null while open."""

    __tablename__ = "request_targets"
    __table_args__ = (
        Index("ix_request_targets_request", "request_id"),
        Index("ix_request_targets_job", "job_id"),
        # What the dispatcher looks for: open targets of a model that no job has taken yet.
        Index("ix_request_targets_waiting", "model_id", "outcome", "job_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("deletion_requests.id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    model_name: Mapped[str] = mapped_column(String(100))
    job_id: Mapped[str | None] = mapped_column(String(40))
    outcome: Mapped[str | None] = mapped_column(String(20))
    records: Mapped[int | None] = mapped_column(Integer)
    base_version: Mapped[int | None] = mapped_column(Integer)
    new_version: Mapped[int | None] = mapped_column(Integer)
    verdict: Mapped[str | None] = mapped_column(String(20))
    grade: Mapped[str | None] = mapped_column(String(2))
    report_path: Mapped[str | None] = mapped_column(Text)


class IdempotencyRecord(Base):
    """The first answer to a key of one principal, with a fingerprint of the body it answered."""

    __tablename__ = "idempotency_records"
    __table_args__ = (Index("ix_idempotency_records_expires", "expires_at"),)

    principal: Mapped[str] = mapped_column(String(80), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(40))
    response: Mapped[dict[str, Any]] = mapped_column(JSON)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
