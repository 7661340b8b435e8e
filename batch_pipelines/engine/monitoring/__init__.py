"""Watching batches: measures over the last ones, thresholds with hysteresis, and what a breach does.

All of it is read from the ledger and written to it; whoever calls `watch` keeps nothing.

- `facts`: what the ledger knows of the batches that count.
- `measures`: what is measured of them; pure.
- `states`: from one state to the next; pure.
- `watch`: one look at a feed, or at all of them: changes, alerts, pauses; read this first.
- `failures`: each failed batch is told, and taken as mended.
- `refused`: a rollback that a breach asked for and that could not be done.
- `overall`: what holds for all feeds together.
"""

from __future__ import annotations

from batch_pipelines.engine.monitoring.overall import read_overall
from batch_pipelines.engine.monitoring.watch import Change, watch, watch_all

__all__ = ["Change", "read_overall", "watch", "watch_all"]
