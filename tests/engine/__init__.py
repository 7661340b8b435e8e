"""Tests of the engine, without Dagster."""
