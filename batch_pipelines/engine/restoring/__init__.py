"""Bringing the rows of archived batches back into their tables.

What lives here, in the order in which it happens: what can be told from the catalog (`standing`), the
rows in staging tables of the transaction (`staged`), what is in their way (`colliding`), the transaction
(`restore`), the proof before its end (`proving`), and a restore in words (`report`). What does not:
putting rows away (`archiving.rows`), deleting them, and importing a delivery again.
"""
