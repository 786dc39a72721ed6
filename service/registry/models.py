"""Models, their versions and every artefact that descends from training data."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.catalogue.precisions import FULL
from service.database import Base, UtcDateTime


class Model(Base):
    """A served model line. `serving_version_id` is the pointer that the publish transaction moves, `serve_precision`
    what its weights are rounded to when they are served, and so when a candidate is judged."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    task: Mapped[str] = mapped_column(String(40))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    recipe: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    policy_digest: Mapped[str] = mapped_column(String(64))
    serve_precision: Mapped[str] = mapped_column(String(8), default=FULL, server_default=FULL)
    # No foreign key: the version row refers to the model, and one of the two has to come first.
    serving_version_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Version(Base):
    """One content-addressed directory of weights. States: candidate, serving, retired, destroyed."""

    __tablename__ = "versions"
    __table_args__ = (Index("ix_versions_model_number", "model_id", "number", unique=True),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int] = mapped_column(Integer)
    parent_id: Mapped[str | None] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(20))
    method: Mapped[str | None] = mapped_column(String(60))
    job_id: Mapped[str | None] = mapped_column(String(40))
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    verification: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    destroy_by: Mapped[datetime | None] = mapped_column(UtcDateTime)
    destroyed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Artefact(Base):
    """A file or folder derived from training data (job files, score tables, forget sets, weights) with its end.

    `model_id` is empty while the weights of a model that is being registered have no model yet. `condemned_by` is the
    job whose deletion gave it its date.
    """

    __tablename__ = "artefacts"
    __table_args__ = (Index("ix_artefacts_destroy_by", "destroy_by"), Index("ix_artefacts_job", "job_id"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    job_id: Mapped[str | None] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(40))
    path: Mapped[str] = mapped_column(Text)
    digest: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    destroy_by: Mapped[datetime | None] = mapped_column(UtcDateTime)
    destroyed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    condemned_by: Mapped[str | None] = mapped_column(String(40))


class Leased:
    """Columns of a row that workers take turns on: `fence` grows with every claim, the highest one holds the lease.

    The row is the truth; a message only says "look at row N" (`sent_at`, `sends`).
    """

    owner: Mapped[str | None] = mapped_column(String(120))
    fence: Mapped[int] = mapped_column(Integer, default=0)
    claims: Mapped[int] = mapped_column(Integer, default=0)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sends: Mapped[int] = mapped_column(Integer, default=0)


class ReferencePool(Leased, Base):
    """The reference models of a model line. States: planning, building, refreshing, ready, cancelled, failed, ended.

    `recipe` is null for the served model's own, without what only a served model needs. `version_id` is the version
    whose tokenizer the members share. `deletions` counts publications that deleted records of the pool, `purged` those
    whose records have left its files since. Training again begins after `refresh_at` when the model has nothing else
    to do, and at `refresh_by` in any case.
    """

    __tablename__ = "reference_pools"
    __table_args__ = (
        Index("ix_reference_pools_state", "state"),
        # One pool per model that is not at its end, enforced by the database.
        Index(
            "uq_reference_pools_live_model",
            "model_id",
            unique=True,
            postgresql_where="state <> 'ended'",
            sqlite_where="state <> 'ended'",
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    dataset_digest: Mapped[str] = mapped_column(String(64))
    holdout_digest: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20))
    generation: Mapped[int] = mapped_column(Integer, default=0)
    count: Mapped[int] = mapped_column(Integer)
    strategy: Mapped[str] = mapped_column(String(20))
    reserved: Mapped[float | None] = mapped_column()
    seed: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(Text)
    recipe: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    deletions: Mapped[int] = mapped_column(Integer, default=0)
    purged: Mapped[int] = mapped_column(Integer, default=0)
    refresh_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    refresh_by: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ready_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ReferenceMember(Leased, Base):
    """One reference model of a pool. States: queued, running, ready, stale (holds deleted people), destroyed.

    `artefact_id` is the directory that it is, or was while stale; `digest` is that of its weights, `seconds` the wall
    time of its last training. `generation` grows when it has to be trained without deleted people.
    """

    __tablename__ = "reference_members"
    __table_args__ = (
        Index("ix_reference_members_pool_number", "pool_id", "number", unique=True),
        Index("ix_reference_members_state", "state", "lease_until"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    pool_id: Mapped[str] = mapped_column(ForeignKey("reference_pools.id"))
    number: Mapped[int] = mapped_column(Integer)
    pair: Mapped[int] = mapped_column(Integer)
    side: Mapped[str] = mapped_column(String(10))
    half: Mapped[int] = mapped_column(Integer)
    generation: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[str] = mapped_column(String(20))
    artefact_id: Mapped[str | None] = mapped_column(String(40))
    digest: Mapped[str | None] = mapped_column(String(64))
    seconds: Mapped[float | None] = mapped_column()
    progress: Mapped[float] = mapped_column(default=0.0)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
