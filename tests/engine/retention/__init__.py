"""Tests of `engine.retention`."""
