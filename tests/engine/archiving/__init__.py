"""Tests of how bags are packed, where they stand and how they are read."""
