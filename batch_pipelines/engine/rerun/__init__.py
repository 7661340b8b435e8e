"""Running failed partitions again, as a whole chain.

- `failed`: which partitions stand failed, from the ledger.
- `deciding`: which of them are run again now. Pure.
- `requests`: partitions that somebody wants to be run again.
"""
