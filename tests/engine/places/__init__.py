"""Tests of the places where deliveries lie."""
