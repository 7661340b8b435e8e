"""Metrics for outside monitoring."""
