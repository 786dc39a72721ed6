"""What a job waits for, and what a reviewer decided on its publication."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add both columns, empty."""
    op.add_column("jobs", sa.Column("waits_for", sa.String(length=20), nullable=True))
    op.add_column("jobs", sa.Column("review", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop both. Not in a batch: that would copy the table of jobs, which attempts and events refer to."""
    op.drop_column("jobs", "review")
    op.drop_column("jobs", "waits_for")
