"""Tests of engine/rerun."""
