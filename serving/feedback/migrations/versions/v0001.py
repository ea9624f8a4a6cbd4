"""The table of feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("message_id", sa.String(998)),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("given", sa.Text),
        sa.Column("probability", sa.Double),
        sa.Column("model", sa.String(200)),
        sa.Column("version", sa.String(200)),
        sa.Column("store_text", sa.Boolean, nullable=False),
        sa.Column("train", sa.Boolean, nullable=False),
        sa.Column("raw", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("sender", sa.Text),
        sa.Column("body", sa.Text),
        sa.UniqueConstraint("token", "key", name="feedback_once"),
    )
    op.create_index("ix_feedback_created", "feedback", ["created"])


def downgrade() -> None:
    """To nothing."""
    op.drop_table("feedback")
