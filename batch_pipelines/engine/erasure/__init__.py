"""Erasure: what there is of a person leaves tables, ledger and bags, and the act itself stays on record.

In the order of the data:

- `subject`: whose records: a table, and values of some of its columns, which are never written down.
- `searching`: the numbers of that person's records in a delivered file.
- `plan`: where how much of it is, what stands in the way. It changes nothing.
- `rows`: the one transaction over tables and ledger.
- `cutting`, `bags`: a file without some of its records; a bag with such files in place of another one.
- `record`: what is kept of an erasure, without values.
- `course`: all of that, resumable; read this first.
"""
