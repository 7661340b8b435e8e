"""Tests of `batch_pipelines.engine.reconciliation`."""
