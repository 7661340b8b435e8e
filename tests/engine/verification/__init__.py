"""Tests of writing to target tables."""
