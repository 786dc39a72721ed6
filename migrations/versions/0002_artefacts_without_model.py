"""Weights of a model that is being registered are noted before the model has a row."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Let an artefact have no model."""
    with op.batch_alter_table("artefacts") as table:
        table.alter_column("model_id", existing_type=sa.String(length=40), nullable=True)


def downgrade() -> None:
    """Require the model again; fails while weights wait for their destruction that belong to none."""
    op.execute("DELETE FROM artefacts WHERE model_id IS NULL AND destroyed_at IS NOT NULL")
    with op.batch_alter_table("artefacts") as table:
        table.alter_column("model_id", existing_type=sa.String(length=40), nullable=False)
