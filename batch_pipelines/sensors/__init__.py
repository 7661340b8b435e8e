"""Sensors: thin wrappers around pure decisions."""
