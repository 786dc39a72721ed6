"""In which precision a model is served."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Models that are registered already are served as they are stored."""
    column = sa.Column("serve_precision", sa.String(length=8), nullable=False, server_default="fp32")
    op.add_column("models", column)


def downgrade() -> None:
    """Serve every model as it is stored. Not in a batch: that would copy a table that others refer to."""
    op.drop_column("models", "serve_precision")
