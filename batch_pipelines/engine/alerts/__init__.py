"""Alerts: telling people what they need to know, once, with proof that they were told.

Whoever finds something raises an alert, which is a row of the ledger and nothing else: no stage waits
for a channel, and none fails with one.

- `alert`: what an alert is.
- `record`: raising, acknowledging, resolving and listing alerts.
- `channels`: the channels by name, from the environment.
- `message`: what people read.
- `outbox`: what waits to be told, in the ledger: claims, attempts, pauses, escalation.
- `courier`, `sending`: handing a message to a channel, in a process of its own.
- `send`: sending what waits; read this first.
- `at_once`: sending what a batch has raised, by its own run.
"""

from __future__ import annotations

from batch_pipelines.engine.alerts.alert import Alert, Recorded
from batch_pipelines.engine.alerts.record import (
    acknowledge,
    find,
    keep_silent,
    listed,
    raise_alert,
    resolve,
)

__all__ = [
    "Alert",
    "Recorded",
    "acknowledge",
    "find",
    "keep_silent",
    "listed",
    "raise_alert",
    "resolve",
]
