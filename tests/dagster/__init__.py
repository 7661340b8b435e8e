"""Tests of the Dagster layer, on a real instance whose storage is PostgreSQL."""
