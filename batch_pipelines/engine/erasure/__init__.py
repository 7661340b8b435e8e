"""Erasure: what there is of a person leaves tables, ledger and bags, and the act itself stays on record.

In the order of the data:

- `subject`: whose records: a table, and values of some of its columns, which are never written down.
- `searching`, `keys`, `copies`: the numbers of that person's records, in files and bags.
- `plan`: where how much of it is, what stands in the way. It changes nothing.
- `rows`, `traces`: the one transaction over tables and ledger.
- `cutting`, `refilling`, `bags`: files and bags without some records, in place of others.
- `fitting`: what the ledger says of a batch, made to fit its new bags.
- `course`: all of that, resumable; read this first.
"""
