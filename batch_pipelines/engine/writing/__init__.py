"""Bringing rows into target tables: COPY, taking an earlier batch's place, naming what was refused."""
