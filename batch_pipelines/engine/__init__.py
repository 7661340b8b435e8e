"""Everything that works without Dagster: settings, feeds, catalog, ledger, and the five stages.

A stage knows the feed, the catalog and the ledger, and never another stage. Nothing here imports
Dagster, reads a clock by itself where a test would want to set it, or does anything at import.
"""
