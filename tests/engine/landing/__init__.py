"""Tests of what lies in landing."""
