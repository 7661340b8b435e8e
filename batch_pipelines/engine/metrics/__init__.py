"""Metrics for outside monitoring, in Prometheus' names and units; docs/monitoring.md lists them."""
