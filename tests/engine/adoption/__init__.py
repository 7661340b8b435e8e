"""Tests of tables that were there before us."""
