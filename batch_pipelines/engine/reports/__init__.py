"""Reports: what the ledger knows of a batch or a feed, for people to read, print and hand over.

A report is a typed model, read from the ledger in one snapshot (`batch_facts`). JSON is that model as it
is; a `Page` is how people see it, and the same for every kind of report: `html` writes it as one
self-contained file, `export` its tables as CSV. Nothing here changes the ledger, and no value of a
row is in a report.
"""
