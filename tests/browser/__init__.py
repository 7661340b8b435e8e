"""Tests that drive the real UI in a real browser, as a data engineer would with the mouse."""
