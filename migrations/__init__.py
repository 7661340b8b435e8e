"""Alembic migrations of the ledger (schema `batch_audit`). They are SQL, in the order of their names."""
