"""Retention: what is old leaves the hot tables under a written rule, and nothing that was not read back.

In the order of the data:

- `rules`: which rules apply to a feed's data; the longest wins.
- `holds`: legal holds, which beat all rules.
- `plan`: what would go, and what keeps it.
- `records`: lines of the ledger, put away in a bag of their own (rows of tables: `archiving.rows`).
- `deleting`: the transaction that looks at everything once more, and deletes.
- `record`: how far it came, and its events.
- `course`: all of that, a class of data of a batch at a time; read this first.
- `trail_plan`, `trail`: months of the audit trail, which is all feeds': sealed, and removed as a whole.
- `site`: their rules, from a file of their own.
- `partitions`: which keys Dagster need not know any more.
- `sql`: the statements, in one place.
"""
