"""Attacks on what is guaranteed: faults at every step, hostile input, random damage, random courses."""
