"""Tests of `engine.erasure`."""
