"""Tests of taking batches back."""
