"""The ledger (schema `batch_audit`): the truth about every batch.

`batches` keeps what happened to a batch and how far it came, `files` what was delivered and its
checksums, `proofs` the balance, the digests and what validation found. Each function runs one or two
statements on the connection it is given, inside the transaction of whoever calls it.
"""
