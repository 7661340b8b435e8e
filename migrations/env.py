"""What Alembic runs: the migrations, over the connection that `engine.postgres.migrate` made."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema="batch_audit",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
