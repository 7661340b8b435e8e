"""Retention: what is old leaves the hot tables under a written rule, and nothing that was not read back.

In the order of the data:

- `rules`: which rules apply to a feed's data; the longest wins.
- `holds`: legal holds, which beat all rules.
- `plan`: what would go, and what keeps it.
- `sql`: the statements, in one place.
"""
