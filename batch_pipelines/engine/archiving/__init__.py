"""Bags: how they are packed, where they stand, and how they are read again, proven, years later."""
