"""Reference pools and their members; which deletion gave an artefact its date."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True)


def _leased() -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("owner", sa.String(length=120), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("sent_at", TIME, nullable=True),
        sa.Column("sends", sa.Integer(), nullable=False),
    ]


def upgrade() -> None:
    """Create both tables, pools first."""
    op.add_column("artefacts", sa.Column("condemned_by", sa.String(length=40), nullable=True))
    op.create_table(
        "reference_pools",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("version_id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("dataset_digest", sa.String(length=64), nullable=False),
        sa.Column("holdout_digest", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("strategy", sa.String(length=20), nullable=False),
        sa.Column("reserved", sa.Double(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=True),
        sa.Column("deletions", sa.Integer(), nullable=False),
        sa.Column("purged", sa.Integer(), nullable=False),
        sa.Column("refresh_at", TIME, nullable=True),
        sa.Column("refresh_by", TIME, nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ready_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        *_leased(),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_reference_pools_model_id"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_reference_pools_version_id"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_reference_pools_dataset_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reference_pools"),
    )
    op.create_index("ix_reference_pools_state", "reference_pools", ["state"])
    op.create_index(
        "uq_reference_pools_live_model",
        "reference_pools",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text("state <> 'ended'"),
        sqlite_where=sa.text("state <> 'ended'"),
    )
    op.create_table(
        "reference_members",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("pool_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pair", sa.Integer(), nullable=False),
        sa.Column("side", sa.String(length=10), nullable=False),
        sa.Column("half", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("artefact_id", sa.String(length=40), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        *_leased(),
        sa.ForeignKeyConstraint(["pool_id"], ["reference_pools.id"], name="fk_reference_members_pool_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reference_members"),
    )
    op.create_index("ix_reference_members_pool_number", "reference_members", ["pool_id", "number"], unique=True)
    op.create_index("ix_reference_members_state", "reference_members", ["state", "lease_until"])


def downgrade() -> None:
    """Drop both. Nothing answers for the directories of pools any more, so that the next sweep destroys them."""
    op.execute("UPDATE artefacts SET destroy_by = created_at WHERE kind LIKE 'reference-%' AND destroyed_at IS NULL")
    op.drop_table("reference_members")
    op.drop_table("reference_pools")
    with op.batch_alter_table("artefacts") as table:
        table.drop_column("condemned_by")
