"""Tests of reading another database."""
