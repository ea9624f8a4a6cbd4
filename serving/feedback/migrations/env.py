"""Run by Alembic with the connection that `serving.feedback.store` hands over, in its transaction.

MLflow may live in the same database, with an `alembic_version` of its own.
"""

from alembic import context

from serving.feedback.record import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="feedback_version",
    transactional_ddl=True,
)
context.run_migrations()
