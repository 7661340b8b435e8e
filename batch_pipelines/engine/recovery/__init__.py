"""Batches that nobody works on any more, and such as nobody shall work on any more.

- `held`: what the ledger knows of leases that were never given back, and of batches left in between.
- `judging`: which of them are dead. Pure.
- `ending`: failing a dead run's batch, its backends ended, its room given back, people told.
- `cancelling`: the same on demand, while the run is alive.
"""
