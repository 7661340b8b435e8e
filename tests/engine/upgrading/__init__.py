"""Databases that earlier revisions of the program have written come up to the newest one."""
