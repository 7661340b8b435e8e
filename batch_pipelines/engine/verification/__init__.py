"""Verify: prove an old batch again, against the tables of today."""
