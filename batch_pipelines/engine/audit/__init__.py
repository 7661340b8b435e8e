"""The audit trail held up: its chain is walked, and compared with what stands outside the database.

Not here: how entries get into it (`ledger.events`).
"""
