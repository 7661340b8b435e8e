"""Tests of windows of time."""
