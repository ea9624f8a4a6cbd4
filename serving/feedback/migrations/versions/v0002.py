"""Whole messages as bytes: not all of them are UTF-8."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """What is there is UTF-8."""
    with op.batch_alter_table("feedback") as table:
        table.alter_column("raw", type_=sa.LargeBinary, postgresql_using="convert_to(raw, 'UTF8')")


def downgrade() -> None:
    """Fails on PostgreSQL where a message is not UTF-8."""
    with op.batch_alter_table("feedback") as table:
        table.alter_column("raw", type_=sa.Text, postgresql_using="convert_from(raw, 'UTF8')")
