"""Dagster resources: thin wrappers that hand plain engine objects to assets and sensors."""
